// Points of the twisted Edwards curve -x^2 + y^2 = 1 + d*x^2*y^2 over 2^255 - 19, constant time.
//
// Formulas: Hisil, Wong, Carter, Dawson, "Twisted Edwards Curves Revisited" (Asiacrypt 2008), §3 and §4.3: a doubling
// needs no T, so a run of doublings costs 4S + 3M each; an addition 4M + 3M (or 4M where T is wanted). They are
// complete: no input is special.
#pragma once

#include "field.h"
#include "scalar.h"

namespace tc {

struct Projective {  // x = X/Z, y = Y/Z; all tight
    Fe x, y, z;
};

struct Extended {  // and T = X*Y/Z; all tight
    Fe x, y, z, t;
};

struct Completed {  // x = X/Z, y = Y/T: a result before it is brought to one denominator. Limbs below 2^54
    Fe x, y, z, t;
};

struct alignas(16) Cached {  // the second operand of an addition. Limbs below 2^54
    Fe y_plus_x, y_minus_x, z2, t2d;
};

struct alignas(16) AffineCached {  // the same for Z = 1
    Fe y_plus_x, y_minus_x, t2d;
};

constexpr Projective kIdentityProjective = {kZero, kOne, kOne};
constexpr Extended kIdentity = {kZero, kOne, kOne, kZero};
constexpr Extended kGenerator = {  // what RFC 9496 §4.3.1 decodes the encoding of the generator to
    {{0x183e0918de5d2, 0x75514cf8d85e8, 0x00d4de9025c7f, 0x061eeadffc2b4, 0x1063e2cc8cfe8}},
    {{0x6df80f533ad9b, 0x7484a7be9398f, 0x713b56d745322, 0x63f830d9eab87, 0x159a6849e44c3}},
    kOne,
    {{0x1754c5a48224a, 0x7f115d5a15244, 0x550720b7c3d81, 0x4cd4c8ad8b8cd, 0x1878a0f028748}},
};

TC_INLINE Projective projective(const Completed& p) { return {p.x * p.t, p.y * p.z, p.z * p.t}; }

TC_INLINE Extended extended(const Completed& p) { return {p.x * p.t, p.y * p.z, p.z * p.t, p.x * p.y}; }

TC_INLINE Projective projective(const Extended& p) { return {p.x, p.y, p.z}; }

TC_INLINE Cached cached(const Extended& p) { return {p.y + p.x, p.y - p.x, p.z + p.z, p.t * k2D}; }

TC_INLINE Completed doubled(const Projective& p) {
    const Fe xx = squared(p.x), yy = squared(p.y), zz = squared(p.z);
    const Fe sum = yy + xx;
    return {squared(p.x + p.y) - sum, sum, yy - xx, (zz + zz + xx) - yy};
}

TC_INLINE Completed operator+(const Extended& p, const Cached& q) {
    const Fe a = (p.y - p.x) * q.y_minus_x, b = (p.y + p.x) * q.y_plus_x, c = p.t * q.t2d, d = p.z * q.z2;
    return {b - a, b + a, d + c, d - c};
}

TC_INLINE Completed operator+(const Extended& p, const AffineCached& q) {
    const Fe a = (p.y - p.x) * q.y_minus_x, b = (p.y + p.x) * q.y_plus_x, c = p.t * q.t2d, d = p.z + p.z;
    return {b - a, b + a, d + c, d - c};
}

TC_INLINE Extended operator-(const Extended& p) { return {carried(-p.x), p.y, p.z, carried(-p.t)}; }

// -q if the mask is set, else q.
TC_INLINE Cached negated_if(u64 mask, const Cached& q) {
    return {select(mask, q.y_minus_x, q.y_plus_x), select(mask, q.y_plus_x, q.y_minus_x), q.z2,
            select(mask, -q.t2d, q.t2d)};
}

TC_INLINE AffineCached negated_if(u64 mask, const AffineCached& q) {
    return {select(mask, q.y_minus_x, q.y_plus_x), select(mask, q.y_plus_x, q.y_minus_x),
            select(mask, -q.t2d, q.t2d)};
}

constexpr Cached kCachedIdentity = {kOne, kOne, {{2, 0, 0, 0, 0}}, kZero};
constexpr AffineCached kAffineCachedIdentity = {kOne, kOne, kZero};

// digit * P for a digit in -8..8, from the table of 1P..8P: every entry is read, whatever the digit.
template <class Entry>
TC_INLINE Entry lookup(const Entry (&table)[8], const Entry& identity, int digit) {
    typedef u64 Pair __attribute__((vector_size(16)));
    constexpr int pairs = sizeof(Entry) / sizeof(Pair);
    const u64 wide = static_cast<u64>(static_cast<i64>(digit));
    const u64 negative = mask_of(wide >> 63), magnitude = (wide ^ negative) - negative;
    const auto pair_of = [](const Entry& entry, int i) {
        Pair pair;
        std::memcpy(&pair, reinterpret_cast<const char*>(&entry) + sizeof(Pair) * i, sizeof pair);
        return pair;
    };
    Pair chosen[9];  // all ones for the entry wanted, the identity last
    for (u64 i = 0; i < 9; ++i) {
        const u64 hit = mask_of(((magnitude ^ ((i + 1) % 9)) - 1) >> 63);
        chosen[i] = Pair{hit, hit};
    }
    Entry result;
    for (int i = 0; i < pairs; ++i) {
        Pair found = pair_of(identity, i) & chosen[8];
        for (int entry = 0; entry < 8; ++entry) found |= pair_of(table[entry], i) & chosen[entry];
        std::memcpy(reinterpret_cast<char*>(&result) + sizeof(Pair) * i, &found, sizeof found);
    }
    return negated_if(negative, result);
}

// The multiple of p that the digits stand for.
inline Projective multiplied(const Extended& p, const Digits& digits) {
    Cached table[8];  // 1p..8p
    table[0] = cached(p);
    for (int i = 1; i < 8; ++i) table[i] = cached(extended(p + table[i - 1]));
    Projective total = projective(kIdentity + lookup(table, kCachedIdentity, digits.digit[63]));
    for (int i = 62; i >= 0; --i) {
        for (int j = 0; j < 3; ++j) total = projective(doubled(total));
        total = projective(extended(doubled(total)) + lookup(table, kCachedIdentity, digits.digit[i]));
    }
    return total;
}

// Multiples of a point that many scalars shall multiply: entry[i][j] = (j + 1) * 256^i * P.
struct BaseTable {
    AffineCached entry[32][8];
};

BaseTable computed_base_table(const Extended& point);  // allocates

// Decodes the 32 bytes of an element (RFC 9496 §4.3.1); false if they are not one. The answer is not secret.
bool decoded(const u8* bytes, Extended& point);

const BaseTable& generator_table();

// `start` plus the multiple of the table's point that the digits stand for.
Extended added_base(const Extended& start, const BaseTable& table, const Digits& digits);

}  // namespace tc
