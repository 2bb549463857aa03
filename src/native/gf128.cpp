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

void dot(const u8* a, const u8* b, std::size_t count, u8* out) {
    u64 low = 0, high = 0;
    for (std::size_t i = 0; i < count; ++i) {
        u8 product[16];
        mul(a + 16 * i, b + 16 * i, 16, 1, product);
        low ^= load64le(product);
        high ^= load64le(product + 8);
    }
    store64le(out, low);
    store64le(out + 8, high);
}

}  // namespace

const Gf128Functions kGf128Portable = {mul, dot};

void gf128_dot(const Dispatch& with, const u8* a, const u8* b, std::size_t count, u8* out) {
    with.gf128.dot(a, b, count, out);
}

void gf128_mul(const Dispatch& with, const u8* a, const u8* b, std::size_t step, std::size_t count, u8* out) {
    with.gf128.mul(a, b, step, count, out);
}

}  // namespace tc
