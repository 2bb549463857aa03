// The field of 2^255 - 19 elements, four at a time with AVX2: ten limbs of 26 and 25 bits by turns, constant time.
//
// One element in each 64-bit lane, one limb in each vector (Bernstein and Schwabe, "NEON crypto", CHES 2012, have the
// radix; a product of two limbs is one vpmuludq). Limb i stands at bit ceil(25.5 * i), so that limbs 2i and 2i + 1
// make up limb i of field.h.
//
// A value of k *units* has limbs below k * (2^26 + 2^13) where i is even, k * (2^25 + 2^17) where it is odd. Products,
// squares, carried() and from_rows() have one. In a product a*b, b has at most 3.3 units (19 times a limb must fit 32
// bits), a at most 8, and both together at most 20 units times units: then the sums stay below 2^63.4 and take their
// carries. A sum adds units; a - b adds 2p, so b has one unit and the difference two more than a; minus_sum() adds 4p,
// for b of up to three, and the difference has four more than a.
//
// Included by sources that stand between push_options and pop_options for AVX2, and by nobody else.
#pragma once

#include "field.h"

namespace tc {
namespace {

using Lanes = __m256i;  // four 64-bit lanes; a mask has all ones or all zeros in each

constexpr u64 kEvenLimb = (u64{1} << 26) - 1, kOddLimb = (u64{1} << 25) - 1;

TC_INLINE Lanes lanes(u64 value) { return _mm256_set1_epi64x(static_cast<long long>(value)); }
TC_INLINE Lanes limb_mask(int i) { return lanes(i % 2 == 0 ? kEvenLimb : kOddLimb); }
TC_INLINE Lanes past_limb(Lanes a, int i) { return i % 2 == 0 ? _mm256_srli_epi64(a, 26) : _mm256_srli_epi64(a, 25); }
TC_INLINE Lanes added(Lanes a, Lanes b) { return _mm256_add_epi64(a, b); }
TC_INLINE Lanes product(Lanes a, Lanes b) { return _mm256_mul_epu32(a, b); }
TC_INLINE Lanes times19(Lanes a) {
    return added(added(_mm256_slli_epi64(a, 4), _mm256_slli_epi64(a, 1)), a);
}

struct Fe4 {
    Lanes v[10];
};

// The same element in every lane.
TC_INLINE Fe4 broadcast(const Fe& a) {
    Fe4 r;
    for (int i = 0; i < 5; ++i) {
        r.v[2 * i] = lanes(a.v[i] & kEvenLimb);
        r.v[2 * i + 1] = lanes(a.v[i] >> 26);
    }
    return r;
}

TC_INLINE Fe4 operator+(const Fe4& a, const Fe4& b) {
    Fe4 r;
    for (int i = 0; i < 10; ++i) r.v[i] = added(a.v[i], b.v[i]);
    return r;
}

// Limb i of `multiple` times p.
TC_INLINE Lanes prime_limb(int i, u64 multiple) {
    return lanes(multiple * (i == 0 ? kEvenLimb - 18 : i % 2 == 0 ? kEvenLimb : kOddLimb));
}

TC_INLINE Fe4 operator-(const Fe4& a, const Fe4& b) {
    Fe4 r;
    for (int i = 0; i < 10; ++i) r.v[i] = _mm256_sub_epi64(added(a.v[i], prime_limb(i, 2)), b.v[i]);
    return r;
}

TC_INLINE Fe4 minus_sum(const Fe4& a, const Fe4& b) {
    Fe4 r;
    for (int i = 0; i < 10; ++i) r.v[i] = _mm256_sub_epi64(added(a.v[i], prime_limb(i, 4)), b.v[i]);
    return r;
}

// One unit, for limbs up to 2^36: every limb hands on what is above it, once.
TC_INLINE Fe4 carried(const Fe4& a) {
    Fe4 r;
    Lanes from = times19(past_limb(a.v[9], 9));
    TC_UNROLL
    for (int i = 0; i < 10; ++i) {
        const Lanes next = past_limb(a.v[i], i);
        r.v[i] = added(_mm256_and_si256(a.v[i], limb_mask(i)), from);
        from = next;
    }
    return r;
}

// Holds the sums in registers and everything else in memory, where vpmuludq can take it from: gcc would rather regroup
// the sums and spill them.
TC_INLINE void pin(Lanes* h, Lanes (&factors)[10]) {
    __asm__("" : "+x"(h[0]), "+x"(h[1]), "+x"(h[2]), "+x"(h[3]), "+x"(h[4]), "+x"(h[5]), "+x"(h[6]), "+x"(h[7]),
                 "+x"(h[8]), "+x"(h[9]), "+m"(factors) : : "memory");
}

TC_INLINE void hand_on(Lanes* h, int i) {
    h[i + 1] = added(h[i + 1], past_limb(h[i], i));
    h[i] = _mm256_and_si256(h[i], limb_mask(i));
}

// Sums of products to one unit; two chains of carries hide each other's latency.
TC_INLINE void settle(Lanes* h, Fe4& r) {
    hand_on(h, 0), hand_on(h, 5);
    hand_on(h, 1), hand_on(h, 6);
    hand_on(h, 2), hand_on(h, 7);
    hand_on(h, 3), hand_on(h, 8);
    hand_on(h, 4);
    h[0] = added(h[0], times19(past_limb(h[9], 9)));
    h[9] = _mm256_and_si256(h[9], limb_mask(9));
    hand_on(h, 5), hand_on(h, 0);
    TC_UNROLL
    for (int i = 0; i < 10; ++i) r.v[i] = h[i];
}

// Not inlined: a formula's products, inlined, would not fit the caches of instructions.
__attribute__((noinline)) void multiply(Fe4& r, const Fe4& a, const Fe4& b) {
    Lanes h[10], b19[10];
    const Lanes nineteen = lanes(19);
    TC_UNROLL
    for (int j = 1; j < 10; ++j) b19[j] = product(b.v[j], nineteen);
    TC_UNROLL
    for (int j = 0; j < 10; ++j) h[j] = product(a.v[0], b.v[j]);
    pin(h, b19);
    TC_UNROLL
    for (int i = 1; i < 10; ++i) {
        const Lanes once = a.v[i], twice = i % 2 == 0 ? once : added(once, once);
        TC_UNROLL
        for (int j = 0; j < 10; ++j) {  // the product of two odd limbs counts twice where it belongs
            const Lanes& factor = i + j < 10 ? b.v[j] : b19[j];
            h[(i + j) % 10] = added(h[(i + j) % 10], product(j % 2 == 0 ? once : twice, factor));
        }
        pin(h, b19);
    }
    settle(h, r);
}

__attribute__((noinline)) void square(Fe4& r, const Fe4& a) {
    Lanes h[10], a19[10];
    const Lanes nineteen = lanes(19);
    TC_UNROLL
    for (int j = 5; j < 10; ++j) a19[j] = product(a.v[j], nineteen);
    const Lanes first = added(a.v[0], a.v[0]);
    h[0] = product(a.v[0], a.v[0]);
    TC_UNROLL
    for (int j = 1; j < 10; ++j) h[j] = product(first, a.v[j]);
    pin(h, a19);
    TC_UNROLL
    for (int i = 1; i < 10; ++i) {
        const Lanes once = a.v[i], twice = added(once, once);
        const Lanes same = i % 2 == 0 ? once : twice, others = i % 2 == 0 ? twice : added(twice, twice);
        h[2 * i % 10] = added(h[2 * i % 10], product(same, 2 * i < 10 ? a.v[i] : a19[i]));
        TC_UNROLL
        for (int j = i + 1; j < 10; ++j) {
            const Lanes& factor = i + j < 10 ? a.v[j] : a19[j];
            h[(i + j) % 10] = added(h[(i + j) % 10], product(j % 2 == 0 ? twice : others, factor));
        }
        pin(h, a19);
    }
    settle(h, r);
}

TC_INLINE Fe4 operator*(const Fe4& a, const Fe4& b) {
    Fe4 r;
    multiply(r, a, b);
    return r;
}

TC_INLINE Fe4 squared(const Fe4& a) {
    Fe4 r;
    square(r, a);
    return r;
}

inline Fe4 squared(Fe4 a, int count) {
    for (int i = 0; i < count; ++i) square(a, a);
    return a;
}

// mask ? a : b, lane by lane.
TC_INLINE Fe4 select(Lanes mask, const Fe4& a, const Fe4& b) {
    Fe4 r;
    for (int i = 0; i < 10; ++i) r.v[i] = _mm256_blendv_epi8(b.v[i], a.v[i], mask);
    return r;
}

TC_INLINE Lanes both(Lanes a, Lanes b) { return _mm256_and_si256(a, b); }
TC_INLINE Lanes either(Lanes a, Lanes b) { return _mm256_or_si256(a, b); }
TC_INLINE Lanes without(Lanes a, Lanes b) { return _mm256_andnot_si256(b, a); }

// The representatives below p, for limbs up to 2^36.
inline Fe4 canonical(const Fe4& a) {
    Fe4 t = carried(carried(a));  // below 2^255 + 2^231
    // t + 19 overflows 2^255 exactly when t >= p; then p is to be taken off once.
    Lanes over = past_limb(added(t.v[0], lanes(19)), 0);
    for (int i = 1; i < 10; ++i) over = past_limb(added(t.v[i], over), i);
    t.v[0] = added(t.v[0], times19(over));
    for (int i = 0; i < 9; ++i) hand_on(t.v, i);
    t.v[9] = both(t.v[9], limb_mask(9));
    return t;
}

TC_INLINE Lanes odd_mask_of(const Fe4& canonical_a) {
    return _mm256_cmpeq_epi64(both(canonical_a.v[0], lanes(1)), lanes(1));
}

inline Lanes odd_mask(const Fe4& a) { return odd_mask_of(canonical(a)); }

inline Lanes zero_mask(const Fe4& a) {
    const Fe4 t = canonical(a);
    Lanes any = t.v[0];
    for (int i = 1; i < 10; ++i) any = either(any, t.v[i]);
    return _mm256_cmpeq_epi64(any, lanes(0));
}

// One unit: -a where the mask is set, else a, for a of one unit.
TC_INLINE Fe4 negated_if(Lanes mask, const Fe4& a) {
    const Fe4 zero = broadcast(kZero);
    return carried(select(mask, zero - a, a));
}

// CT_ABS of RFC 9496, for a of one unit.
inline Fe4 absolute(const Fe4& a) { return negated_if(odd_mask(a), a); }

// Four elements of field.h side by side.
inline Fe4 gathered(const Fe (&rows)[4]) {
    Fe4 r;
    for (int i = 0; i < 5; ++i) {
        const Lanes limb = _mm256_set_epi64x(
            static_cast<long long>(rows[3].v[i]), static_cast<long long>(rows[2].v[i]),
            static_cast<long long>(rows[1].v[i]), static_cast<long long>(rows[0].v[i]));
        r.v[2 * i] = both(limb, lanes(kEvenLimb));
        r.v[2 * i + 1] = _mm256_srli_epi64(limb, 26);
    }
    return r;
}

// Four rows of 32 bytes each, little-endian; the top bits are ignored.
inline Fe4 from_rows(const u8* const (&rows)[4]) {
    const Fe each[4] = {from_bytes(rows[0]), from_bytes(rows[1]), from_bytes(rows[2]), from_bytes(rows[3])};
    return gathered(each);
}

// The canonical encodings, one row after the other: 128 bytes.
inline void to_rows(u8* rows, const Fe4& a) {
    const Fe4 t = canonical(a);
    alignas(32) u64 limbs[5][4];
    for (int i = 0; i < 5; ++i) {
        _mm256_store_si256(reinterpret_cast<Lanes*>(limbs[i]),
                           either(t.v[2 * i], _mm256_slli_epi64(t.v[2 * i + 1], 26)));
    }
    for (int lane = 0; lane < 4; ++lane, rows += 32) {
        store64le(rows, limbs[0][lane] | limbs[1][lane] << 51);
        store64le(rows + 8, limbs[1][lane] >> 13 | limbs[2][lane] << 38);
        store64le(rows + 16, limbs[2][lane] >> 26 | limbs[3][lane] << 25);
        store64le(rows + 24, limbs[3][lane] >> 39 | limbs[4][lane] << 12);
    }
}

// Two times four independent elements, whose latencies hide each other's; the templates of field.h take them.
struct Fe4Pair {
    Fe4 a, b;
};

inline Fe4Pair operator*(const Fe4Pair& x, const Fe4Pair& y) { return {x.a * y.a, x.b * y.b}; }

inline Fe4Pair squared(Fe4Pair x, int count = 1) {
    for (int i = 0; i < count; ++i) square(x.a, x.a), square(x.b, x.b);
    return x;
}

namespace avx2 {
#include "power_ladder.h"
}  // namespace avx2

inline Fe4 inverted(const Fe4& z) { return avx2::inverted(z); }

struct Root4 {
    Lanes is_square;  // mask
    Fe4 root;         // the even one, one unit
};

// SQRT_RATIO_M1 of RFC 9496 §4.2, as RootTask of field.h.
struct RootTask4 {
    Fe4 u, v, v3, radicand;

    // u and v of one unit.
    RootTask4(const Fe4& numerator, const Fe4& denominator) : u(numerator), v(denominator) {
        v3 = squared(v) * v;
        radicand = u * (squared(v3) * v);  // u*v^7
    }

    Root4 finish(const Fe4& power) const {
        const Fe4 r = u * v3 * power;
        const Fe4 check = v * squared(r), i = broadcast(kSqrtM1);
        const Lanes same = zero_mask(check - u), flipped = zero_mask(check + u);
        const Lanes flipped_i = zero_mask(check + u * i);
        return {either(same, flipped), absolute(select(either(flipped, flipped_i), r * i, r))};
    }
};

struct RootPair4 {
    Root4 a, b;
};

inline RootPair4 sqrt_ratio_m1(const RootTask4& a, const RootTask4& b) {
    const Fe4Pair power = avx2::root_power(Fe4Pair{a.radicand, b.radicand});
    return {a.finish(power.a), b.finish(power.b)};
}

}  // namespace
}  // namespace tc
