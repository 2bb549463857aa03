// Multiplication in GF(2^128) by shifting and adding under masks: constant time, on any processor.
#include "gf128.h"

#include "kernels.h"

namespace tc {
namespace {

void mul(const u8* a, const u8* b, std::size_t step, std::size_t count, u8* out) {
    for (std::size_t i = 0; i < count; ++i) {
        u64 low = load64le(a + 16 * i), high = load64le(a + 16 * i + 8), sum_low = 0, sum_high = 0;
        for (int half = 0; half < 2; ++half) {
            const u64 factor = load64le(b + step * i + 8 * half);
            for (int bit = 0; bit < 64; ++bit) {
                const u64 mask = mask_of(factor >> bit & 1), carry = mask_of(high >> 63) & 0x87;
                sum_low ^= low & mask;
                sum_high ^= high & mask;
                high = high << 1 | low >> 63;
                low = low << 1 ^ carry;
            }
        }
        store64le(out + 16 * i, sum_low);
        store64le(out + 16 * i + 8, sum_high);
    }
}

}  // namespace

const Gf128Functions kGf128Portable = {mul};

void gf128_mul(const Dispatch& with, const u8* a, const u8* b, std::size_t step, std::size_t count, u8* out) {
    with.gf128.mul(a, b, step, count, out);
}

}  // namespace tc
