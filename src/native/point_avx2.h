// Points of the curve of point.h, four at a time with AVX2, constant time. The formulas are those of point.h; the
// bounds, in units of field_avx2.h, are its own.
//
// Included by ristretto255_avx2.cpp, between push_options and pop_options.
#pragma once

#include "field_avx2.h"
#include "point.h"

namespace tc {
namespace {

struct Projective4 {  // one unit each
    Fe4 x, y, z;
};

struct Extended4 {  // one unit each
    Fe4 x, y, z, t;
};

struct Completed4 {  // x = X/Z, y = Y/T. X, Y and Z up to 3 units, T up to 5: first factors may be larger
    Fe4 x, y, z, t;
};

struct Cached4 {  // up to 3 units
    Fe4 y_plus_x, y_minus_x, z2, t2d;
};

struct AffineCached4 {  // the same for Z = 1
    Fe4 y_plus_x, y_minus_x, t2d;
};

inline Extended4 identity4() {
    const Fe4 zero = broadcast(kZero), one = broadcast(kOne);
    return {zero, one, one, zero};
}

inline Projective4 projective(const Extended4& p) { return {p.x, p.y, p.z}; }

inline Cached4 cached(const Extended4& p) { return {p.y + p.x, p.y - p.x, p.z + p.z, p.t * broadcast(k2D)}; }

// Results go where they belong, limb by limb: returned by value, elements of 320 bytes would be copied again and again.
inline void complete(Projective4& r, const Completed4& p) {
    multiply(r.x, p.t, p.x);
    multiply(r.y, p.y, p.z);
    multiply(r.z, p.t, p.z);
}

inline void complete(Extended4& r, const Completed4& p) {
    multiply(r.x, p.t, p.x);
    multiply(r.y, p.y, p.z);
    multiply(r.z, p.t, p.z);
    multiply(r.t, p.x, p.y);
}

inline void double_into(Completed4& r, const Projective4& p) {
    Fe4 xx, yy, zz, square_of_sum = p.x + p.y;
    square(xx, p.x);
    square(yy, p.y);
    square(zz, p.z);
    square(square_of_sum, square_of_sum);
    for (int i = 0; i < 10; ++i) {
        const Lanes sum = added(yy.v[i], xx.v[i]), more = added(yy.v[i], prime_limb(i, 2));
        const Lanes less = added(added(zz.v[i], zz.v[i]), _mm256_sub_epi64(prime_limb(i, 4), more));
        r.x.v[i] = _mm256_sub_epi64(added(square_of_sum.v[i], prime_limb(i, 4)), sum);
        r.y.v[i] = sum;
        r.z.v[i] = _mm256_sub_epi64(more, xx.v[i]);
        r.t.v[i] = added(less, xx.v[i]);
    }
    r.x = carried(r.x);
}

// From the four products of an addition.
TC_INLINE void combine(Completed4& r, const Fe4& a, const Fe4& b, const Fe4& c, const Fe4& d) {
    for (int i = 0; i < 10; ++i) {
        r.x.v[i] = _mm256_sub_epi64(added(b.v[i], prime_limb(i, 2)), a.v[i]);
        r.y.v[i] = added(b.v[i], a.v[i]);
        r.z.v[i] = added(d.v[i], c.v[i]);
        r.t.v[i] = _mm256_sub_epi64(added(d.v[i], prime_limb(i, 2)), c.v[i]);
    }
}

inline void add_into(Completed4& r, const Extended4& p, const Cached4& q) {
    Fe4 a = p.y - p.x, b = p.y + p.x, c, d;
    multiply(a, a, q.y_minus_x);
    multiply(b, b, q.y_plus_x);
    multiply(c, p.t, q.t2d);
    multiply(d, p.z, q.z2);
    combine(r, a, b, c, d);
}

inline void add_into(Completed4& r, const Extended4& p, const AffineCached4& q) {
    Fe4 a = p.y - p.x, b = p.y + p.x, c;
    multiply(a, a, q.y_minus_x);
    multiply(b, b, q.y_plus_x);
    multiply(c, p.t, q.t2d);
    combine(r, a, b, c, p.z + p.z);
}

inline Projective4 projective(const Completed4& p) {
    Projective4 r;
    complete(r, p);
    return r;
}

inline Extended4 extended(const Completed4& p) {
    Extended4 r;
    complete(r, p);
    return r;
}

inline Completed4 doubled(const Projective4& p) {
    Completed4 r;
    double_into(r, p);
    return r;
}

template <class Entry>
Completed4 operator+(const Extended4& p, const Entry& q) {
    Completed4 r;
    add_into(r, p, q);
    return r;
}

// Tables keep two limbs in a lane, limb 2i + 1 above limb 2i: half the memory, half the work of a constant-time lookup.
struct Packed {
    Lanes w[5];
};

TC_INLINE Packed packed(const Fe4& a) {
    Packed r;
    for (int i = 0; i < 5; ++i) r.w[i] = either(a.v[2 * i], _mm256_slli_epi64(a.v[2 * i + 1], 32));
    return r;
}

TC_INLINE Fe4 unpacked(const Packed& a) {
    Fe4 r;
    for (int i = 0; i < 5; ++i) {
        r.v[2 * i] = both(a.w[i], lanes(0xffffffff));
        r.v[2 * i + 1] = _mm256_srli_epi64(a.w[i], 32);
    }
    return r;
}

struct PackedCached {
    Packed y_plus_x, y_minus_x, z2, t2d;
};

// Masks for a digit in -8..8 in each lane.
struct Choice {
    Lanes negative, hit[8], zero;

    explicit Choice(const signed char* digits) {
        u32 bytes;
        std::memcpy(&bytes, digits, 4);
        const Lanes digit = _mm256_cvtepi8_epi64(_mm_cvtsi32_si128(static_cast<int>(bytes)));
        zero = _mm256_cmpeq_epi64(digit, lanes(0));
        negative = _mm256_cmpgt_epi64(lanes(0), digit);
        const Lanes magnitude = _mm256_sub_epi64(_mm256_xor_si256(digit, negative), negative);
        for (u64 i = 0; i < 8; ++i) hit[i] = _mm256_cmpeq_epi64(magnitude, lanes(i + 1));
    }
};

// Negating a point swaps y + x with y - x and negates t2d.
TC_INLINE void negate_if(Lanes mask, Fe4& y_plus_x, Fe4& y_minus_x, Fe4& t2d) {
    for (int i = 0; i < 10; ++i) {
        const Lanes difference = both(mask, _mm256_xor_si256(y_plus_x.v[i], y_minus_x.v[i]));
        y_plus_x.v[i] = _mm256_xor_si256(y_plus_x.v[i], difference);
        y_minus_x.v[i] = _mm256_xor_si256(y_minus_x.v[i], difference);
        t2d.v[i] = _mm256_blendv_epi8(t2d.v[i], _mm256_sub_epi64(prime_limb(i, 2), t2d.v[i]), mask);
    }
}

// digit * P from the table of 1P..8P, lane by lane: every entry is read, whatever the digits.
inline Cached4 lookup(const PackedCached (&table)[8], const Choice& choice) {
    constexpr int kWords = sizeof(PackedCached) / sizeof(Lanes);
    const auto word = [&](int entry, int i) {
        return _mm256_load_si256(reinterpret_cast<const Lanes*>(&table[entry]) + i);
    };
    PackedCached found;
    for (int i = 0; i < kWords; ++i) {
        Lanes sum = both(word(0, i), choice.hit[0]);
        for (int entry = 1; entry < 8; ++entry) sum = either(sum, both(word(entry, i), choice.hit[entry]));
        std::memcpy(reinterpret_cast<char*>(&found) + sizeof(Lanes) * static_cast<std::size_t>(i), &sum, sizeof sum);
    }
    const Lanes one = both(choice.zero, lanes(1));  // where the digit is 0, the identity: (1, 1, 2, 0)
    found.y_plus_x.w[0] = either(found.y_plus_x.w[0], one);
    found.y_minus_x.w[0] = either(found.y_minus_x.w[0], one);
    found.z2.w[0] = either(found.z2.w[0], both(choice.zero, lanes(2)));
    Cached4 result = {unpacked(found.y_plus_x), unpacked(found.y_minus_x), unpacked(found.z2), unpacked(found.t2d)};
    negate_if(choice.negative, result.y_plus_x, result.y_minus_x, result.t2d);
    return result;
}

// Digits of four scalars, as signed_digits makes them.
struct Digits4 {
    alignas(4) signed char digit[64][4];

    void set(int lane, const Digits& digits) {
        for (int i = 0; i < 64; ++i) digit[i][lane] = digits.digit[i];
    }
};

// The multiples of p that the digits stand for.
inline Projective4 multiplied(const Extended4& p, const Digits4& digits) {
    PackedCached table[8];  // 1p..8p
    Extended4 multiple = p;
    const Cached4 step = cached(p);
    for (int i = 0; i < 8; ++i) {
        const Cached4 entry = i == 0 ? step : cached(multiple);
        table[i] = {packed(entry.y_plus_x), packed(entry.y_minus_x), packed(entry.z2), packed(entry.t2d)};
        if (i < 7) multiple = extended(multiple + step);
    }
    Completed4 sum = identity4() + lookup(table, Choice(digits.digit[63]));
    for (int i = 62; i >= 0; --i) {
        Projective4 total;
        complete(total, sum);
        for (int j = 0; j < 3; ++j) {
            double_into(sum, total);
            complete(total, sum);
        }
        double_into(sum, total);
        complete(multiple, sum);
        add_into(sum, multiple, lookup(table, Choice(digits.digit[i])));
    }
    return projective(sum);
}

// A BaseTable with two limbs in a word, each word for all lanes: y + x, y - x, t2d.
struct PackedBaseTable {
    u64 entry[32][8][15];

    explicit PackedBaseTable(const BaseTable& table) {
        for (int i = 0; i < 32; ++i) {
            for (int j = 0; j < 8; ++j) {
                const AffineCached& from = table.entry[i][j];
                for (int k = 0; k < 5; ++k) {
                    entry[i][j][k] = word(from.y_plus_x, k);
                    entry[i][j][k + 5] = word(from.y_minus_x, k);
                    entry[i][j][k + 10] = word(from.t2d, k);
                }
            }
        }
    }

   private:
    static u64 word(const Fe& a, int k) { return (a.v[k] & kEvenLimb) | a.v[k] >> 26 << 32; }
};

inline AffineCached4 lookup(const u64 (&table)[8][15], const Choice& choice) {
    Packed found[3];
    for (int i = 0; i < 15; ++i) {
        Lanes sum = both(lanes(table[0][i]), choice.hit[0]);
        for (int entry = 1; entry < 8; ++entry) sum = either(sum, both(lanes(table[entry][i]), choice.hit[entry]));
        found[i / 5].w[i % 5] = sum;
    }
    const Lanes one = both(choice.zero, lanes(1));
    found[0].w[0] = either(found[0].w[0], one);
    found[1].w[0] = either(found[1].w[0], one);
    AffineCached4 result = {unpacked(found[0]), unpacked(found[1]), unpacked(found[2])};
    negate_if(choice.negative, result.y_plus_x, result.y_minus_x, result.t2d);
    return result;
}

// `start` plus the multiples of the table's point that the digits stand for: odd digits first, 16 times them, then the
// others.
inline Extended4 added_base(const Extended4& start, const PackedBaseTable& table, const Digits4& digits) {
    Extended4 total = identity4();
    Completed4 sum;
    for (int i = 1; i < 64; i += 2) {
        add_into(sum, total, lookup(table.entry[i / 2], Choice(digits.digit[i])));
        complete(total, sum);
    }
    Projective4 times16 = projective(total);
    for (int j = 0; j < 3; ++j) times16 = projective(doubled(times16));
    total = extended(extended(doubled(times16)) + cached(start));
    for (int i = 0; i < 64; i += 2) {
        add_into(sum, total, lookup(table.entry[i / 2], Choice(digits.digit[i])));
        complete(total, sum);
    }
    return total;
}

}  // namespace
}  // namespace tc
