// Small random ring elements from random words: no table, no branch and no division that depends on them. Loops that a
// compiler turns into vectors; ring.cpp and ring_avx2.cpp compile them for their instruction sets.
#pragma once

#include "platform.h"

namespace tc {

struct RingFunctions {
    void (*ternary)(const u8* words, std::size_t count, u64 modulus, u8* out);
    void (*blend)(const u8* rows, const u8* words, const u8* values, std::size_t count, unsigned shift, u64 modulus,
                  u8* out);
    void (*add)(const u8* a, const u8* b, std::size_t count, u64 modulus, u8* out);
};

extern const RingFunctions kRingPortable;
#if defined(__x86_64__)
extern const RingFunctions kRingAvx2;
#endif

constexpr u64 kNoise = (u64{1} << 21) - 1;

// Centred binomial: ones among the lowest 21 bits less those among the highest, both counted in one word.
TC_INLINE i64 ring_noise(u64 word) {
    u64 x = (word & kNoise) | word >> 43 << 32;
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F;
    x += x >> 8;
    x += x >> 16;
    return static_cast<i64>(x & 63) - static_cast<i64>(x >> 32 & 63);
}

// Of an integer in -q to q - 1.
TC_INLINE u64 ring_residue(i64 value, u64 modulus) {
    return static_cast<u64>(value) + (static_cast<u64>(value >> 63) & modulus);
}

TC_INLINE void ring_ternary_loop(const u8* words, std::size_t count, u64 modulus, u8* out) {
    for (std::size_t i = 0; i < count; ++i) {
        const u64 digit = static_cast<u64>(u128{load64le(words + 8 * i)} * 3 >> 64);
        const u64 made = ring_residue(static_cast<i64>(digit) - 1, modulus);
        std::memcpy(out + 8 * i, &made, 8);
    }
}

// q: the modulus. rows are below it, values·2^shift within ±q, the noise within ±21.
TC_INLINE void ring_blend_loop(const u8* rows, const u8* words, const u8* values, std::size_t count, unsigned shift,
                               u64 modulus, u8* out) {
    const i64 q = static_cast<i64>(modulus);
    for (std::size_t i = 0; i < count; ++i) {
        i64 sum = static_cast<i64>(load64le(rows + 8 * i)) + ring_noise(load64le(words + 8 * i));
        if (values != nullptr) sum += static_cast<i64>(load64le(values + 8 * i) << shift);
        sum -= q;  // from -2q - 21 to q + 20
        sum += sum >> 63 & q;
        sum += sum >> 63 & q;
        sum += sum >> 63 & q;  // from 0 to q + 20
        const u64 made = ring_residue(sum - q, modulus);
        std::memcpy(out + 8 * i, &made, 8);
    }
}

TC_INLINE void ring_add_loop(const u8* a, const u8* b, std::size_t count, u64 modulus, u8* out) {
    for (std::size_t i = 0; i < count; ++i) {
        const u64 sum = load64le(a + 8 * i) + load64le(b + 8 * i);
        const u64 made = ring_residue(static_cast<i64>(sum - modulus), modulus);
        std::memcpy(out + 8 * i, &made, 8);
    }
}

}  // namespace tc
