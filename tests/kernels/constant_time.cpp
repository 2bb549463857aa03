// Runs the kernels on secrets that valgrind's memcheck holds for undefined: it then reports every branch and every
// address that depends on one (the method of Langley's ctgrind). constant_time.sh builds and runs this.
#include <valgrind/memcheck.h>

#include <cstdio>
#include <vector>

#include "kernels.h"

namespace {

using tc::u8;
using Bytes = std::vector<u8>;

constexpr std::size_t kRows = 67;  // a full inner batch, and an odd rest

// Arbitrary bytes that memcheck takes for undefined.
Bytes secret(std::size_t size) {
    Bytes bytes(size);
    tc::u32 state = 1;
    for (u8& byte : bytes) {
        state = state * 1664525u + 1013904223u;
        byte = static_cast<u8>(state >> 24);
    }
    VALGRIND_MAKE_MEM_UNDEFINED(bytes.data(), bytes.size());
    return bytes;
}

// Public values of the same kind.
Bytes known(std::size_t size) {
    Bytes bytes = secret(size);
    VALGRIND_MAKE_MEM_DEFINED(bytes.data(), bytes.size());
    return bytes;
}

// What set intersection from VOLE computes on. Public: keys of ciphers that both sides have, hashes of keys (they choose
// cells, and a store says that it is not constant time in them), the points of a punctured tree.
bool vole() {
    constexpr std::size_t kLeaves = 100, kSize = 700;
    const Bytes key = known(16), keys = known(32), hashes = known(16 * kRows);
    const Bytes a = secret(16 * kRows), b = secret(16 * kRows), wide = secret(48 * kRows);
    const tc::OkvsShape shape = {2, 90, 3, kRows};
    const unsigned depth = tc::tree_depth(kLeaves);
    Bytes points(8 * kRows);  // zero: the first leaf of each tree
    Bytes out(16 * kRows * kLeaves), sums(32 * kRows * depth), totals(16 * kRows), store(16 * 2 * shape.size());
    bool fine = true;
    const unsigned sets = tc::kAesNi | tc::kClmul;  // memcheck knows no VAES
    for (const tc::u32 use : {0u, sets}) {
        const tc::Dispatch with = tc::dispatch(use);
        tc::aes128_ctr(with, a.data(), kRows, 5, out.data());
        tc::aes128_hash(with, key.data(), wide.data(), 48, kRows, out.data());
        tc::aes128_davies_meyer(with, a.data(), b.data(), kRows, out.data());
        tc::gf128_mul(with, a.data(), b.data(), 16, kRows, out.data());
        tc::gf128_mul(with, a.data(), b.data(), 0, kRows, out.data());
        tc::gf128_dot(with, a.data(), b.data(), kRows, out.data());
        fine = fine && tc::okvs_encode(with, hashes.data(), a.data(), kRows, key.data(), shape, 0, 2, store.data()) ==
                           tc::kFine;
        tc::okvs_decode(with, hashes.data(), kRows, store.data(), key.data(), shape, out.data());
        tc::pprf_expand(with, a.data(), kRows, kLeaves, keys.data(), out.data(), sums.data());
        tc::pprf_puncture(with, sums.data(), points.data(), kRows, kLeaves, keys.data(), out.data(), totals.data());
        Bytes vector = secret(16 * kSize);
        tc::code_convolve(with, key.data(), vector.data(), kSize);
        tc::code_expand(with, vector.data(), kSize, a.data(), key.data(), 3, kRows, out.data());
    }
    return fine;
}

}  // namespace

int main() {
    const u8 dst[] = {'d', 's', 't'};
    const Bytes messages = secret(20 * kRows), scalars = secret(32 * kRows), others = secret(32 * kRows);
    const Bytes wide = secret(64 * kRows);
    Bytes points(32 * kRows), out(64 * kRows);

    bool fine = true;
    for (const tc::u32 use : {0u, static_cast<unsigned>(tc::kAvx2)}) {  // memcheck knows no SHA extensions
        const tc::CurveFunctions curve = tc::dispatch(use).curve;
        curve.hash(messages.data(), 20, dst, sizeof dst, kRows, points.data());
        curve.from_uniform(wide.data(), kRows, out.data());
        curve.hash_mul(messages.data(), 20, dst, sizeof dst, scalars.data(), 32, kRows, out.data());
        curve.hash_blind(messages.data(), 20, dst, sizeof dst, scalars.data(), kRows, out.data());
        curve.mul_base(scalars.data(), kRows, out.data());
        // Those a peer sent: which row is rejected is public.
        VALGRIND_MAKE_MEM_DEFINED(points.data(), points.size());
        fine = fine && curve.mul(points.data(), scalars.data(), 32, kRows, out.data()) == tc::kFine &&
               curve.mul(points.data(), scalars.data(), 0, kRows, out.data()) == tc::kFine &&
               curve.unblind(points.data(), points.data(), scalars.data(), kRows, out.data()) == tc::kFine;
    }

    tc::scalar255_reduce(wide.data(), kRows, out.data());
    tc::scalar255_mul(scalars.data(), others.data(), kRows, out.data());
    tc::scalar255_sub(scalars.data(), others.data(), kRows, out.data());
    tc::expand_message_xmd(messages.data(), 20, dst, sizeof dst, 64, kRows, out.data());
    tc::oprf_finalize(messages.data(), 20, points.data(), kRows, out.data());
    const std::vector<tc::Column> columns = {{1, true, 20, nullptr, messages.data(), messages.size()}};
    tc::digest_columns(tc::dispatch(0), dst, sizeof dst, columns, kRows, out.data());  // memcheck knows no SHA extensions

    fine = vole() && fine;

    // scalar255_invert branches on whether a scalar is zero, and says so: memcheck must see exactly that. This is also
    // the proof that it sees anything.
    const unsigned before = VALGRIND_COUNT_ERRORS;
    tc::scalar255_invert(scalars.data(), 1, out.data());
    const unsigned control = VALGRIND_COUNT_ERRORS - before;
    std::printf("branches on secrets: %u, and %u where one is meant\n", before, control);
    return fine && before == 0 && control == 1 ? 0 : 1;
}
