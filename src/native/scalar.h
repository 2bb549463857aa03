// Integers modulo l = 2^252 + 27742317777372353535851937790883648493, the order of ristretto255, constant time.
//
// Four limbs of 64 bits. Products are Montgomery products (Montgomery, "Modular multiplication without trial
// division", 1985) with R = 2^256.
#pragma once

#include "platform.h"

namespace tc {

struct Scalar {
    u64 v[4];
};

constexpr Scalar kOrder = {{0x5812631a5cf5d3ed, 0x14def9dea2f79cd6, 0, 0x1000000000000000}};
constexpr Scalar kR = {{0xd6ec31748d98951d, 0xc6ef5bf4737dcf70, 0xfffffffffffffffe, 0x0fffffffffffffff}};
constexpr Scalar kR2 = {{0xa40611e3449c0f01, 0xd00e1ba768859347, 0xceec73d217f5be65, 0x0399411b7c309a3d}};
constexpr u64 kMinusInverse = 0xd2b51da312547e1b;  // -1/l mod 2^64

inline Scalar load_scalar(const u8* bytes) {
    return {{load64le(bytes), load64le(bytes + 8), load64le(bytes + 16), load64le(bytes + 24)}};
}

inline void store_scalar(u8* bytes, const Scalar& a) {
    for (int i = 0; i < 4; ++i) store64le(bytes + 8 * i, a.v[i]);
}

// a + (mask & b) as integers, which must stay below 2^256.
inline Scalar added_if(u64 mask, const Scalar& a, const Scalar& b) {
    Scalar r;
    u128 carry = 0;
    for (int i = 0; i < 4; ++i) {
        carry += u128{a.v[i]} + (mask & b.v[i]);
        r.v[i] = static_cast<u64>(carry);
        carry >>= 64;
    }
    return r;
}

// a - b mod l, for a and b below 2^255 with a - b between -l and l.
inline Scalar subtracted(const Scalar& a, const Scalar& b) {
    Scalar r;
    u64 borrow = 0;
    for (int i = 0; i < 4; ++i) {
        const u128 difference = u128{a.v[i]} - b.v[i] - borrow;
        r.v[i] = static_cast<u64>(difference);
        borrow = static_cast<u64>(difference >> 64) & 1;
    }
    return added_if(mask_of(borrow), r, kOrder);
}

// a*b/R mod l, below l. a is any 256-bit integer, b is below l: then the sum is below 2*l*R before the division.
inline Scalar montgomery(const Scalar& a, const Scalar& b) {
    u64 t[6] = {0, 0, 0, 0, 0, 0};
    for (int i = 0; i < 4; ++i) {
        u128 carry = 0;
        for (int j = 0; j < 4; ++j) {
            carry += u128{a.v[i]} * b.v[j] + t[j];
            t[j] = static_cast<u64>(carry);
            carry >>= 64;
        }
        carry += t[4];
        t[4] = static_cast<u64>(carry);
        t[5] = static_cast<u64>(carry >> 64);
        const u64 m = t[0] * kMinusInverse;  // makes the lowest limb vanish
        carry = (u128{m} * kOrder.v[0] + t[0]) >> 64;
        for (int j = 1; j < 4; ++j) {
            carry += u128{m} * kOrder.v[j] + t[j];
            t[j - 1] = static_cast<u64>(carry);
            carry >>= 64;
        }
        carry += t[4];
        t[3] = static_cast<u64>(carry);
        t[4] = t[5] + static_cast<u64>(carry >> 64);
    }
    return subtracted({{t[0], t[1], t[2], t[3]}}, kOrder);  // from below 2l to below l
}

inline Scalar operator*(const Scalar& a, const Scalar& b) { return montgomery(montgomery(a, kR2), montgomery(b, kR)); }

// Any 256-bit integer mod l.
inline Scalar reduced(const Scalar& a) { return montgomery(a, kR); }

// A 512-bit little-endian integer mod l.
inline Scalar reduced_wide(const u8* bytes) {
    const Scalar low = reduced(load_scalar(bytes)), high = montgomery(load_scalar(bytes + 32), kR2);
    return subtracted(added_if(~u64{0}, low, high), kOrder);
}

// a/2 mod l, for a below l.
inline Scalar halved(const Scalar& a) {
    const Scalar even = added_if(mask_of(a.v[0] & 1), a, kOrder);
    return {{even.v[0] >> 1 | even.v[1] << 63, even.v[1] >> 1 | even.v[2] << 63, even.v[2] >> 1 | even.v[3] << 63,
             even.v[3] >> 1}};
}

inline u64 zero_mask(const Scalar& a) {
    const u64 any = a.v[0] | a.v[1] | a.v[2] | a.v[3];
    return mask_of(((any | (0 - any)) >> 63) ^ 1);
}

// 64 digits in -8..8 with a = sum of digit[i] * 16^i, for a below 2^253.
struct Digits {
    signed char digit[64];
};

inline Digits signed_digits(const Scalar& a) {
    Digits d;
    int carry = 0;
    for (int i = 0; i < 64; ++i) {
        carry += static_cast<int>(a.v[i / 16] >> (4 * (i % 16)) & 15);
        const int next = (carry + 8) >> 4;
        d.digit[i] = static_cast<signed char>(carry - 16 * next);
        carry = next;
    }
    return d;
}

// Digits of any 256-bit integer, taken mod l.
inline Digits scalar_digits(const u8* scalar) {
    Scalar a = reduced(load_scalar(scalar));
    const Digits digits = signed_digits(a);
    wipe(&a, sizeof a);
    return digits;
}

// Digits of half of it: encoders double what comes out.
inline Digits half_digits(const u8* scalar) {
    Scalar half = halved(reduced(load_scalar(scalar)));
    const Digits digits = signed_digits(half);
    wipe(&half, sizeof half);
    return digits;
}

}  // namespace tc
