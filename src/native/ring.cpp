// Small random ring elements from random words, on any processor: no table, no branch and no division that depends on
// them.
#include "kernels.h"

namespace tc {
namespace {

constexpr u64 kNoise = (u64{1} << 21) - 1;

// Ones of two words of 32 bits at a time, in place.
TC_INLINE u64 ones(u64 x) {
    x -= x >> 1 & 0x5555555555555555;
    x = (x & 0x3333333333333333) + (x >> 2 & 0x3333333333333333);
    x = (x + (x >> 4)) & 0x0F0F0F0F0F0F0F0F;
    x += x >> 8;
    x += x >> 16;
    return x & 0x0000003F0000003F;
}

// Centred binomial: ones among the lowest 21 bits less those among the highest.
TC_INLINE i64 noise(u64 word) {
    const u64 found = ones((word & kNoise) | word >> 43 << 32);
    return static_cast<i64>(found & 63) - static_cast<i64>(found >> 32);
}

// Of an integer in -q to q - 1.
TC_INLINE u64 residue(i64 value, u64 modulus) {
    return static_cast<u64>(value) + (static_cast<u64>(value >> 63) & modulus);
}

}  // namespace

void ring_ternary(const u8* words, std::size_t count, u64 modulus, u8* out) {
    for (std::size_t i = 0; i < count; ++i) {
        const u64 digit = static_cast<u64>(u128{load64le(words + 8 * i)} * 3 >> 64);
        const u64 made = residue(static_cast<i64>(digit) - 1, modulus);
        std::memcpy(out + 8 * i, &made, 8);
    }
}

void ring_blend(const u8* rows, const u8* words, const u8* values, std::size_t count, unsigned shift, u64 modulus,
                u8* out) {
    for (std::size_t i = 0; i < count; ++i) {
        const i64 value = values == nullptr ? 0 : static_cast<i64>(load64le(values + 8 * i) << shift);
        u64 made = residue(value, modulus) + load64le(rows + 8 * i);  // below 2q, and 21 more are below 2^52
        i64 whole = static_cast<i64>(made) + noise(load64le(words + 8 * i));
        whole += static_cast<i64>(static_cast<u64>(whole >> 63) & modulus);
        made = residue(whole - static_cast<i64>(modulus), modulus);
        made = residue(static_cast<i64>(made) - static_cast<i64>(modulus), modulus);
        std::memcpy(out + 8 * i, &made, 8);
    }
}

void ring_add(const u8* a, const u8* b, std::size_t count, u64 modulus, u8* out) {
    for (std::size_t i = 0; i < count; ++i) {
        const u64 sum = load64le(a + 8 * i) + load64le(b + 8 * i);
        const u64 made = residue(static_cast<i64>(sum) - static_cast<i64>(modulus), modulus);
        std::memcpy(out + 8 * i, &made, 8);
    }
}

}  // namespace tc
