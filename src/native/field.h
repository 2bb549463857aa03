// The field of 2^255 - 19 elements, five limbs of 51 bits, constant time.
//
// Limbs may exceed 51 bits. A value is *tight* if every limb is below 2^51 + 2^13: so are the results of products,
// squares, carried() and from_bytes(). Products and squares accept limbs up to 2^54: then a sum of five products,
// four of them times 19, stays below 77 * 2^108 < 2^115, so that its carry fits 64 bits, and so does 19 times the
// carry out of the top. Sums of two tight values stay below 2^52 + 2^14; a difference adds 4p first, so what is
// subtracted may have limbs up to 2^53 - 76, that is one tight value or the sum of two or three.
#pragma once

#include "platform.h"

namespace tc {

struct Fe {
    u64 v[5];
};

constexpr u64 kLimb = (u64{1} << 51) - 1;
constexpr Fe kZero = {{0, 0, 0, 0, 0}};
constexpr Fe kOne = {{1, 0, 0, 0, 0}};

TC_INLINE Fe operator+(const Fe& a, const Fe& b) {
    return {{a.v[0] + b.v[0], a.v[1] + b.v[1], a.v[2] + b.v[2], a.v[3] + b.v[3], a.v[4] + b.v[4]}};
}

TC_INLINE Fe operator-(const Fe& a, const Fe& b) {
    constexpr u64 low = 4 * (kLimb - 18), other = 4 * kLimb;  // 4p
    return {{a.v[0] + low - b.v[0], a.v[1] + other - b.v[1], a.v[2] + other - b.v[2], a.v[3] + other - b.v[3],
             a.v[4] + other - b.v[4]}};
}

TC_INLINE Fe operator-(const Fe& a) { return kZero - a; }

// Tight, for limbs up to 2^59.
TC_INLINE Fe carried(const Fe& a) {
    return {{(a.v[0] & kLimb) + 19 * (a.v[4] >> 51), (a.v[1] & kLimb) + (a.v[0] >> 51),
             (a.v[2] & kLimb) + (a.v[1] >> 51), (a.v[3] & kLimb) + (a.v[2] >> 51),
             (a.v[4] & kLimb) + (a.v[3] >> 51)}};
}

// The limb that stays of a sum of products and a carry; leaves the next carry. In halves: gcc would keep a 128-bit
// carry in memory.
TC_INLINE u64 limb_of(u128 sum, u64& carry) {
    u64 low;
    const bool over = __builtin_add_overflow(static_cast<u64>(sum), carry, &low);
    const u64 high = static_cast<u64>(sum >> 64) + over;
    carry = opaque(high << 13) | low >> 51;  // opaque: shrd is slow
    return low & kLimb;
}

TC_INLINE Fe carried(u128 r0, u128 r1, u128 r2, u128 r3, u128 r4) {
    u64 carry = 0;
    const u64 h0 = limb_of(r0, carry), h1 = limb_of(r1, carry), h2 = limb_of(r2, carry);
    const u64 h3 = limb_of(r3, carry), h4 = limb_of(r4, carry), wrapped = h0 + 19 * carry;
    return {{wrapped & kLimb, h1 + (wrapped >> 51), h2, h3, h4}};
}

TC_INLINE Fe operator*(const Fe& a, const Fe& b) {
    const u64 a0 = a.v[0], a1 = a.v[1], a2 = a.v[2], a3 = a.v[3], a4 = a.v[4];
    const u64 b0 = b.v[0], b1 = b.v[1], b2 = b.v[2], b3 = b.v[3], b4 = b.v[4];
    const u64 c1 = 19 * b1, c2 = 19 * b2, c3 = 19 * b3, c4 = 19 * b4;  // 2^255 = 19
    const u128 r0 = u128{a0} * b0 + u128{a1} * c4 + u128{a2} * c3 + u128{a3} * c2 + u128{a4} * c1;
    const u128 r1 = u128{a0} * b1 + u128{a1} * b0 + u128{a2} * c4 + u128{a3} * c3 + u128{a4} * c2;
    const u128 r2 = u128{a0} * b2 + u128{a1} * b1 + u128{a2} * b0 + u128{a3} * c4 + u128{a4} * c3;
    const u128 r3 = u128{a0} * b3 + u128{a1} * b2 + u128{a2} * b1 + u128{a3} * b0 + u128{a4} * c4;
    const u128 r4 = u128{a0} * b4 + u128{a1} * b3 + u128{a2} * b2 + u128{a3} * b1 + u128{a4} * b0;
    return carried(r0, r1, r2, r3, r4);
}

TC_INLINE Fe squared(const Fe& a) {
    const u64 a0 = a.v[0], a1 = a.v[1], a2 = a.v[2], a3 = a.v[3], a4 = a.v[4];
    const u64 d0 = 2 * a0, d1 = 2 * a1, c3 = 19 * a3, c4 = 19 * a4;
    const u128 r0 = u128{a0} * a0 + u128{d1} * c4 + u128{2 * a2} * c3;
    const u128 r1 = u128{d0} * a1 + u128{2 * a2} * c4 + u128{a3} * c3;
    const u128 r2 = u128{d0} * a2 + u128{a1} * a1 + u128{2 * a3} * c4;
    const u128 r3 = u128{d0} * a3 + u128{d1} * a2 + u128{a4} * c4;
    const u128 r4 = u128{d0} * a4 + u128{d1} * a3 + u128{a2} * a2;
    return carried(r0, r1, r2, r3, r4);
}

// a^(2^count)
inline Fe squared(Fe a, int count) {
    for (int i = 0; i < count; ++i) a = squared(a);
    return a;
}

// mask ? a : b, for a mask of all ones or all zeros.
TC_INLINE Fe select(u64 mask, const Fe& a, const Fe& b) {
    Fe r;
    for (int i = 0; i < 5; ++i) r.v[i] = b.v[i] ^ (mask & (a.v[i] ^ b.v[i]));
    return r;
}

// 32 bytes, little-endian; the top bit is ignored.
TC_INLINE Fe from_bytes(const u8* bytes) {
    const u64 w0 = load64le(bytes), w1 = load64le(bytes + 8), w2 = load64le(bytes + 16), w3 = load64le(bytes + 24);
    return {{w0 & kLimb, (w0 >> 51 | w1 << 13) & kLimb, (w1 >> 38 | w2 << 26) & kLimb, (w2 >> 25 | w3 << 39) & kLimb,
             w3 >> 12 & kLimb}};
}

// The one representative below p, for limbs of any size.
inline void to_bytes(u8* bytes, const Fe& a) {
    Fe t = carried(carried(a));  // below 2^255 + 2^205
    // t + 19 overflows 2^255 exactly when t >= p; then p is to be taken off once.
    u64 over = (t.v[0] + 19) >> 51;
    for (int i = 1; i < 5; ++i) over = (t.v[i] + over) >> 51;
    t.v[0] += 19 * over;
    for (int i = 0; i < 4; ++i) {
        t.v[i + 1] += t.v[i] >> 51;
        t.v[i] &= kLimb;
    }
    t.v[4] &= kLimb;
    store64le(bytes, t.v[0] | t.v[1] << 51);
    store64le(bytes + 8, t.v[1] >> 13 | t.v[2] << 38);
    store64le(bytes + 16, t.v[2] >> 26 | t.v[3] << 25);
    store64le(bytes + 24, t.v[3] >> 39 | t.v[4] << 12);
}

// All ones if the element is zero, else 0.
inline u64 zero_mask(const Fe& a) {
    u8 bytes[32];
    to_bytes(bytes, a);
    const u64 any = load64le(bytes) | load64le(bytes + 8) | load64le(bytes + 16) | load64le(bytes + 24);
    return mask_of(((any | (0 - any)) >> 63) ^ 1);
}

// All ones if the representative below p is odd ("negative" in RFC 9496), else 0.
inline u64 odd_mask(const Fe& a) {
    u8 bytes[32];
    to_bytes(bytes, a);
    return mask_of(bytes[0] & 1);
}

// Tight: -a if the mask is set, else a. Limbs of a up to 2^53 - 76.
TC_INLINE Fe negated_if(u64 mask, const Fe& a) { return carried(select(mask, -a, a)); }

// CT_ABS of RFC 9496.
inline Fe absolute(const Fe& a) { return negated_if(odd_mask(a), a); }

// Two independent elements. A lone power waits for every product; two at a time hide each other's latency.
struct FePair {
    Fe a, b;
};

TC_INLINE FePair operator*(const FePair& x, const FePair& y) { return {x.a * y.a, x.b * y.b}; }

inline FePair squared(FePair x, int count = 1) {
    for (int i = 0; i < count; ++i) x = {squared(x.a), squared(x.b)};
    return x;
}

template <class F>
struct PowerLadder {
    F to_250;  // z^(2^250 - 1)
    F to_11;   // z^11
};

namespace portable {
#include "power_ladder.h"
}  // namespace portable

inline Fe inverted(const Fe& z) { return portable::inverted(z); }

constexpr Fe kD = {{0x34dca135978a3, 0x1a8283b156ebd, 0x5e7a26001c029, 0x739c663a03cbb, 0x52036cee2b6ff}};
constexpr Fe k2D = {{0x69b9426b2f159, 0x35050762add7a, 0x3cf44c0038052, 0x6738cc7407977, 0x2406d9dc56dff}};
constexpr Fe kSqrtM1 = {{0x61b274a0ea0b0, 0x0d5a5fc8f189d, 0x7ef5e9cbd0c60, 0x78595a6804c9e, 0x2b8324804fc1d}};
constexpr Fe kOneMinusDSquared = {
    {0x409c1945fc176, 0x719abc6a1fc4f, 0x1c37f90b20684, 0x06bccca55eedf, 0x029072a8b2b3e}};
constexpr Fe kDMinusOneSquared = {
    {0x55aaa44ed4d20, 0x59603c3332635, 0x26d3baf4a7928, 0x120a66e6997a9, 0x5968b37af66c2}};
constexpr Fe kSqrtADMinusOne = {
    {0x7f6a0497b2e1b, 0x1836f0a97afd2, 0x7d747f6be7638, 0x456079e7e6498, 0x376931bf2b834}};
constexpr Fe kInvSqrtAMinusD = {
    {0x0fdaa805d40ea, 0x2eb482e57d339, 0x007610274bc58, 0x6510b613dc8ff, 0x786c8905cfaff}};

struct Root {
    u64 is_square;  // mask
    Fe root;        // the even one, tight
};

// SQRT_RATIO_M1 of RFC 9496 §4.2 in two steps around the power of `radicand` that both have in common.
struct RootTask {
    Fe u, v, v3, radicand;

    // u tight.
    RootTask(const Fe& numerator, const Fe& denominator) : u(numerator), v(denominator) {
        v3 = squared(v) * v;
        radicand = u * (squared(v3) * v);  // u*v^7
    }

    Root finish(const Fe& power) const {
        const Fe r = u * v3 * power;
        const Fe check = v * squared(r);
        const u64 same = zero_mask(check - u), flipped = zero_mask(check + u);
        const u64 flipped_i = zero_mask(check + u * kSqrtM1);
        return {same | flipped, absolute(select(flipped | flipped_i, r * kSqrtM1, r))};
    }
};

struct RootPair {
    Root a, b;
};

// The root of u/v, or of sqrt(-1)*u/v if u/v is not a square.
inline Root sqrt_ratio_m1(const RootTask& task) { return task.finish(portable::root_power(task.radicand)); }

inline RootPair sqrt_ratio_m1(const RootTask& a, const RootTask& b) {
    const FePair power = portable::root_power(FePair{a.radicand, b.radicand});
    return {a.finish(power.a), b.finish(power.b)};
}

}  // namespace tc
