// AES-128 with VAES on 256-bit registers: two blocks an instruction, sixteen in flight, constant time.
#include "aes.h"

#if defined(__x86_64__)

#include <immintrin.h>

TC_TARGET_PUSH("vaes,avx2")

namespace tc {
namespace {

TC_INLINE __m256i round_key(const Aes128Key& key, int round) {
    return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(key.round[round])));
}

void encrypt(const Aes128Key& key, const u8* in, u8* out, std::size_t blocks) {
    constexpr int kFlight = 8;
    for (; blocks >= 2 * kFlight; blocks -= 2 * kFlight, in += 32 * kFlight, out += 32 * kFlight) {
        __m256i state[kFlight];
        const __m256i first = round_key(key, 0), last = round_key(key, 10);
        TC_UNROLL
        for (int i = 0; i < kFlight; ++i) {
            state[i] = _mm256_xor_si256(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(in) + i), first);
        }
        for (int round = 1; round < 10; ++round) {
            const __m256i k = round_key(key, round);
            TC_UNROLL
            for (int i = 0; i < kFlight; ++i) state[i] = _mm256_aesenc_epi128(state[i], k);
        }
        TC_UNROLL
        for (int i = 0; i < kFlight; ++i) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out) + i, _mm256_aesenclast_epi128(state[i], last));
        }
    }
    kAes128Ni.encrypt(key, in, out, blocks);
}

void schedule(Aes128Key& key, const u8* bytes) { kAes128Ni.schedule(key, bytes); }

void davies_meyer(const u8* keys, const u8* rows, u8* out, std::size_t blocks) {
    kAes128Ni.davies_meyer(keys, rows, out, blocks);
}

}  // namespace

const Aes128Functions kAes128Vaes = {schedule, encrypt, davies_meyer};

}  // namespace tc

TC_TARGET_POP

#endif
