// SHA-256 with the SHA extensions of x86-64 (Intel SDM, SHA256RNDS2, SHA256MSG1, SHA256MSG2), constant time.
#include "sha2.h"

#if defined(__x86_64__)

#include <immintrin.h>

TC_TARGET_PUSH("sha,ssse3,sse4.1")

namespace tc {
namespace {

// The instructions want the state as (a, b, e, f) and (c, d, g, h), first letter in the highest lane.
struct Halves {
    __m128i abef, cdgh;
};

inline __attribute__((always_inline)) Halves to_halves(const Sha256State& state) {
    const __m128i abcd = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state.h));
    const __m128i efgh = _mm_loadu_si128(reinterpret_cast<const __m128i*>(state.h + 4));
    const __m128i badc = _mm_shuffle_epi32(abcd, 0xb1), hgfe = _mm_shuffle_epi32(efgh, 0x1b);
    return {_mm_alignr_epi8(badc, hgfe, 8), _mm_blend_epi16(hgfe, badc, 0xf0)};
}

inline __attribute__((always_inline)) void from_halves(Sha256State& state, const Halves& halves) {
    const __m128i feba = _mm_shuffle_epi32(halves.abef, 0x1b), dchg = _mm_shuffle_epi32(halves.cdgh, 0xb1);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state.h), _mm_blend_epi16(feba, dchg, 0xf0));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(state.h + 4), _mm_alignr_epi8(dchg, feba, 8));
}

// One block of each of `lanes` messages. lanes is a literal wherever this is called: the loops vanish.
inline __attribute__((always_inline)) void compress_lanes(Halves* state, const u8* const* block, const int lanes) {
    const __m128i big_endian = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i w[2][4];
    Halves now[2];
    for (int lane = 0; lane < lanes; ++lane) {
        now[lane] = state[lane];
        TC_UNROLL
        for (int i = 0; i < 4; ++i) {
            const __m128i* from = reinterpret_cast<const __m128i*>(block[lane] + 16 * i);
            w[lane][i] = _mm_shuffle_epi8(_mm_loadu_si128(from), big_endian);
        }
    }
    TC_UNROLL
    for (int i = 0; i < 16; ++i) {  // four rounds each
        const __m128i constants = _mm_loadu_si128(reinterpret_cast<const __m128i*>(kSha256Round + 4 * i));
        TC_UNROLL
        for (int lane = 0; lane < lanes; ++lane) {
            __m128i(&m)[4] = w[lane];
            Halves& s = now[lane];
            const __m128i sum = _mm_add_epi32(m[i % 4], constants);
            s.cdgh = _mm_sha256rnds2_epu32(s.cdgh, s.abef, sum);
            s.abef = _mm_sha256rnds2_epu32(s.abef, s.cdgh, _mm_shuffle_epi32(sum, 0x0e));
            if (i < 12) {
                const __m128i last = m[(i + 3) % 4], back7 = _mm_alignr_epi8(last, m[(i + 2) % 4], 4);
                const __m128i partial = _mm_add_epi32(_mm_sha256msg1_epu32(m[i % 4], m[(i + 1) % 4]), back7);
                m[i % 4] = _mm_sha256msg2_epu32(partial, last);
            }
        }
    }
    for (int lane = 0; lane < lanes; ++lane) {
        state[lane].abef = _mm_add_epi32(state[lane].abef, now[lane].abef);
        state[lane].cdgh = _mm_add_epi32(state[lane].cdgh, now[lane].cdgh);
    }
}

void compress(Sha256State& state, const u8* data, std::size_t blocks) {
    Halves halves[1] = {to_halves(state)};
    for (std::size_t i = 0; i < blocks; ++i) {
        const u8* block[1] = {data + 64 * i};
        compress_lanes(halves, block, 1);
    }
    from_halves(state, halves[0]);
}

void compress_two(Sha256State& a, const u8* data_a, Sha256State& b, const u8* data_b, std::size_t blocks) {
    Halves halves[2] = {to_halves(a), to_halves(b)};
    for (std::size_t i = 0; i < blocks; ++i) {
        const u8* block[2] = {data_a + 64 * i, data_b + 64 * i};
        compress_lanes(halves, block, 2);
    }
    from_halves(a, halves[0]);
    from_halves(b, halves[1]);
}

}  // namespace

const Sha256Functions kSha256ShaNi = {compress, compress_two};

}  // namespace tc

TC_TARGET_POP

#endif
