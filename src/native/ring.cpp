// Ring elements on any processor.
#include "ring.h"

#include "kernels.h"

namespace tc {
namespace {

void ternary(const u8* words, std::size_t count, u64 modulus, u8* out) { ring_ternary_loop(words, count, modulus, out); }

void blend(const u8* rows, const u8* words, const u8* values, std::size_t count, unsigned shift, u64 modulus, u8* out) {
    if (values == nullptr) {
        ring_blend_loop(rows, words, nullptr, count, 0, modulus, out);
    } else {
        ring_blend_loop(rows, words, values, count, shift, modulus, out);
    }
}

void add(const u8* a, const u8* b, std::size_t count, u64 modulus, u8* out) { ring_add_loop(a, b, count, modulus, out); }

}  // namespace

const RingFunctions kRingPortable = {ternary, blend, add};

}  // namespace tc
