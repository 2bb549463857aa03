// AES-128 with the AES instructions of x86-64, eight blocks in flight, constant time.
#include "aes.h"

#if defined(__x86_64__)

#include <immintrin.h>

TC_TARGET_PUSH("aes,sse4.1")

namespace tc {
namespace {

TC_INLINE __m128i load(const u8* from) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(from)); }
TC_INLINE void store(u8* to, __m128i value) { _mm_storeu_si128(reinterpret_cast<__m128i*>(to), value); }

// One step of the key schedule: each word of the next round key is the sum of all before it in this one, and `assist`.
TC_INLINE __m128i next_key(__m128i key, __m128i assist) {
    key = _mm_xor_si128(key, _mm_slli_si128(key, 4));
    key = _mm_xor_si128(key, _mm_slli_si128(key, 8));
    return _mm_xor_si128(key, _mm_shuffle_epi32(assist, 0xff));
}

void schedule(Aes128Key& key, const u8* bytes) {
    __m128i k = load(bytes);
    store(key.round[0], k);
#define TC_ROUND(number, constant) \
    k = next_key(k, _mm_aeskeygenassist_si128(k, constant)); \
    store(key.round[number], k)
    TC_ROUND(1, 0x01);
    TC_ROUND(2, 0x02);
    TC_ROUND(3, 0x04);
    TC_ROUND(4, 0x08);
    TC_ROUND(5, 0x10);
    TC_ROUND(6, 0x20);
    TC_ROUND(7, 0x40);
    TC_ROUND(8, 0x80);
    TC_ROUND(9, 0x1b);
    TC_ROUND(10, 0x36);
#undef TC_ROUND
}

template <int kFlight>
TC_INLINE void encrypt_some(const Aes128Key& key, const u8* in, u8* out) {
    __m128i state[kFlight];
    const __m128i first = load(key.round[0]), last = load(key.round[10]);
    TC_UNROLL
    for (int i = 0; i < kFlight; ++i) state[i] = _mm_xor_si128(load(in + 16 * i), first);
    for (int round = 1; round < 10; ++round) {
        const __m128i k = load(key.round[round]);
        TC_UNROLL
        for (int i = 0; i < kFlight; ++i) state[i] = _mm_aesenc_si128(state[i], k);
    }
    TC_UNROLL
    for (int i = 0; i < kFlight; ++i) store(out + 16 * i, _mm_aesenclast_si128(state[i], last));
}

void encrypt(const Aes128Key& key, const u8* in, u8* out, std::size_t blocks) {
    for (; blocks >= 8; blocks -= 8, in += 128, out += 128) encrypt_some<8>(key, in, out);
    for (; blocks > 0; --blocks, in += 16, out += 16) encrypt_some<1>(key, in, out);
}

// Each block under a key of its own, whose round keys are made on the way: kFlight of them hide each other's waits.
template <int kFlight>
TC_INLINE void davies_meyer_some(const u8* keys, const u8* rows, u8* out) {
    __m128i key[kFlight], state[kFlight];
    TC_UNROLL
    for (int i = 0; i < kFlight; ++i) {
        key[i] = load(keys + 16 * i);
        state[i] = _mm_xor_si128(load(rows + 16 * i), key[i]);
    }
#define TC_ROUND(constant, step) \
    TC_UNROLL \
    for (int i = 0; i < kFlight; ++i) { \
        key[i] = next_key(key[i], _mm_aeskeygenassist_si128(key[i], constant)); \
        state[i] = step(state[i], key[i]); \
    }
    TC_ROUND(0x01, _mm_aesenc_si128)
    TC_ROUND(0x02, _mm_aesenc_si128)
    TC_ROUND(0x04, _mm_aesenc_si128)
    TC_ROUND(0x08, _mm_aesenc_si128)
    TC_ROUND(0x10, _mm_aesenc_si128)
    TC_ROUND(0x20, _mm_aesenc_si128)
    TC_ROUND(0x40, _mm_aesenc_si128)
    TC_ROUND(0x80, _mm_aesenc_si128)
    TC_ROUND(0x1b, _mm_aesenc_si128)
    TC_ROUND(0x36, _mm_aesenclast_si128)
#undef TC_ROUND
    TC_UNROLL
    for (int i = 0; i < kFlight; ++i) store(out + 16 * i, _mm_xor_si128(state[i], load(rows + 16 * i)));
}

void davies_meyer(const u8* keys, const u8* rows, u8* out, std::size_t blocks) {
    for (; blocks >= 4; blocks -= 4, keys += 64, rows += 64, out += 64) davies_meyer_some<4>(keys, rows, out);
    for (; blocks > 0; --blocks, keys += 16, rows += 16, out += 16) davies_meyer_some<1>(keys, rows, out);
}

}  // namespace

const Aes128Functions kAes128Ni = {schedule, encrypt, davies_meyer};

}  // namespace tc

TC_TARGET_POP

#endif
