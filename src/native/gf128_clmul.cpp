// Multiplication in GF(2^128) with carry-less multiplication (PCLMULQDQ), constant time.
#include "gf128.h"

#if defined(__x86_64__)

#include <immintrin.h>

TC_TARGET_PUSH("pclmul,ssse3")

namespace tc {
namespace {

TC_INLINE __m128i load(const u8* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }

// x^128 = x^7 + x^2 + x + 1: fold the upper half twice, the second time only the seven bits that overflow.
TC_INLINE __m128i reduced(__m128i bottom, __m128i middle, __m128i top_half) {
    const __m128i low = _mm_xor_si128(bottom, _mm_slli_si128(middle, 8));
    const __m128i high = _mm_xor_si128(top_half, _mm_srli_si128(middle, 8));
    const __m128i modulus = _mm_set_epi64x(0, 0x87);
    const __m128i top = _mm_clmulepi64_si128(high, modulus, 0x01);  // its upper word lands 64 bits higher
    const __m128i folded = _mm_xor_si128(low, _mm_slli_si128(top, 8));
    const __m128i rest = _mm_xor_si128(high, _mm_srli_si128(top, 8));
    return _mm_xor_si128(folded, _mm_clmulepi64_si128(rest, modulus, 0x00));
}

TC_INLINE __m128i middle_of(__m128i a, __m128i b) {
    return _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x01), _mm_clmulepi64_si128(a, b, 0x10));
}

TC_INLINE __m128i product(__m128i a, __m128i b) {
    return reduced(_mm_clmulepi64_si128(a, b, 0x00), middle_of(a, b), _mm_clmulepi64_si128(a, b, 0x11));
}

void mul(const u8* a, const u8* b, std::size_t step, std::size_t count, u8* out) {
    for (std::size_t i = 0; i < count; ++i) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16 * i), product(load(a + 16 * i), load(b + step * i)));
    }
}

void dot(const u8* a, const u8* b, std::size_t count, u8* out) {  // products are reduced once, all added up
    __m128i low = _mm_setzero_si128(), middle = low, high = low;
    for (std::size_t i = 0; i < count; ++i) {
        const __m128i x = load(a + 16 * i), y = load(b + 16 * i);
        low = _mm_xor_si128(low, _mm_clmulepi64_si128(x, y, 0x00));
        middle = _mm_xor_si128(middle, middle_of(x, y));
        high = _mm_xor_si128(high, _mm_clmulepi64_si128(x, y, 0x11));
    }
    _mm_storeu_si128(reinterpret_cast<__m128i*>(out), reduced(low, middle, high));
}

}  // namespace

const Gf128Functions kGf128Clmul = {mul, dot};

}  // namespace tc

TC_TARGET_POP

#endif
