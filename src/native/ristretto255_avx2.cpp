// ristretto255 (RFC 9496), four rows at a time with AVX2, constant time; ristretto255.cpp says more of each step. The
// last rows of a batch are filled up with copies of the last one.
#include "curve.h"
#include "kernels.h"
#include "point.h"
#include "xmd.h"

#if defined(__x86_64__)

#include <immintrin.h>

TC_TARGET_PUSH("avx2")

#include "point_avx2.h"

namespace tc {
namespace {

constexpr std::size_t kLanes = 4;

std::size_t smaller(std::size_t a, std::size_t b) { return a < b ? a : b; }

// The rows of `width` bytes from `row` on; past the end, the last one again.
struct Rows {
    const u8* at[kLanes];

    Rows(const u8* data, std::size_t width, std::size_t row, std::size_t count) {
        for (std::size_t lane = 0; lane < kLanes; ++lane) at[lane] = data + width * smaller(row + lane, count - 1);
    }
};

// §4.3.1, up to the root and from it.
struct Decoding4 {
    Fe4 s, u1, u2, u2_squared, v;
    Lanes well_formed;  // mask: the bytes are below p and even

    explicit Decoding4(const Rows& rows) : s(from_rows(rows.at)) {
        u8 canonical_rows[32 * kLanes];
        to_rows(canonical_rows, s);
        u64 mask[kLanes];
        for (std::size_t lane = 0; lane < kLanes; ++lane) {
            u64 difference = rows.at[lane][0] & 1;
            for (int i = 0; i < 32; i += 8) {
                difference |= load64le(canonical_rows + 32 * lane + i) ^ load64le(rows.at[lane] + i);
            }
            mask[lane] = mask_of(((difference | (0 - difference)) >> 63) ^ 1);
        }
        std::memcpy(&well_formed, mask, sizeof mask);
        const Fe4 one = broadcast(kOne), zero = broadcast(kZero), ss = squared(s);
        u1 = carried(one - ss), u2 = one + ss, u2_squared = squared(u2);
        v = carried(minus_sum(zero, broadcast(kD) * squared(u1) + u2_squared));
    }

    RootTask4 task() const { return {broadcast(kOne), v * u2_squared}; }

    // All ones where the encoding is canonical and of an element; the point means nothing otherwise.
    Lanes finish(const Root4& inverse, Extended4& point) const {
        const Fe4 den_x = inverse.root * u2, den_y = inverse.root * den_x * v;
        const Fe4 x = absolute((s + s) * den_x), y = u1 * den_y, t = x * y;
        point = {x, y, broadcast(kOne), t};
        return without(without(both(well_formed, inverse.is_square), odd_mask(t)), zero_mask(y));
    }
};

// Decodes `count` rows, eight at a time, and hands each four of them to `use` with the number of their first one.
// Returns the first row that is not an element, after which nothing more is handed out.
template <class Use>
i64 decode_each(const u8* points, std::size_t count, Use use) {
    for (std::size_t row = 0; row < count; row += 2 * kLanes) {
        const std::size_t next = row + kLanes;
        const Decoding4 low(Rows(points, 32, row, count)), high(Rows(points, 32, next, count));
        const RootPair4 roots = sqrt_ratio_m1(low.task(), high.task());
        Extended4 point[2];
        const Lanes valid[2] = {low.finish(roots.a, point[0]), high.finish(roots.b, point[1])};
        u64 fine[2 * kLanes];
        std::memcpy(fine, valid, sizeof fine);
        for (std::size_t i = 0; i < smaller(2 * kLanes, count - row); ++i) {
            if (!fine[i]) return static_cast<i64>(row + i);
        }
        use(row, point[0]);
        if (next < count) use(next, point[1]);
    }
    return kFine;
}

// §4.3.2, for any point: costs an inverse square root. Two times four points.
struct Encoding4 {
    const Extended4& p;
    Fe4 u1, u2;

    explicit Encoding4(const Extended4& point) : p(point) {
        u1 = (p.z + p.y) * (p.z - p.y), u2 = p.x * p.y;
    }

    RootTask4 task() const { return {broadcast(kOne), u1 * squared(u2)}; }

    Fe4 finish(const Fe4& inverse) const {
        const Fe4 i = broadcast(kSqrtM1);
        const Fe4 den1 = inverse * u1, den2 = inverse * u2, z_inverse = den1 * den2 * p.t;
        const Lanes rotate = odd_mask(p.t * z_inverse);
        const Fe4 x = select(rotate, p.y * i, p.x), y = select(rotate, p.x * i, p.y);
        const Fe4 den = select(rotate, den1 * broadcast(kInvSqrtAMinusD), den2);
        return absolute((p.z - negated_if(odd_mask(x * z_inverse), y)) * den);
    }
};

// Writes rows of four in turn, and only as many as there are.
class Writer {
   public:
    Writer(u8* out, std::size_t count) : out_(out), left_(count) {}

    void write(const Fe4& s) {
        u8 rows[32 * kLanes];
        to_rows(rows, s);
        const std::size_t size = smaller(kLanes, left_);
        std::memcpy(out_, rows, 32 * size);
        out_ += 32 * size;
        left_ -= size;
    }

   private:
    u8* out_;
    std::size_t left_;
};

// Encodes doubles, which need no square root; see DoubleEncoder in ristretto255.cpp.
class Output4 {
   public:
    Output4(u8* out, std::size_t count) : writer_(out, count) {}

    // Queue the doubles of four points.
    void add(const Projective4& p) {
        const Completed4 d = doubled(p);
        Entry& entry = entries_[count_++];
        entry.e = d.x, entry.g = carried(d.y), entry.f = carried(d.z), entry.h = carried(d.t);
        entry.eg = entry.e * entry.g, entry.fh = entry.f * entry.h;
        if (count_ == kBatch) flush();
    }

    void flush() {
        const Fe4 one = broadcast(kOne);
        Fe4 product = one;
        for (std::size_t i = 0; i < count_; ++i) {
            Entry& entry = entries_[i];
            const Fe4 all = entry.eg * entry.fh;
            entry.vanishes = zero_mask(all);  // the double is the identity, and s = 0
            entry.all = select(entry.vanishes, one, all);
            entry.before = product;
            product = product * entry.all;
        }
        Fe4 inverse = inverted(product), encoded[kBatch];
        for (std::size_t i = count_; i-- > 0;) {
            encoded[i] = finished(entries_[i], inverse * entries_[i].before);
            inverse = inverse * entries_[i].all;
        }
        for (std::size_t i = 0; i < count_; ++i) writer_.write(encoded[i]);
        count_ = 0;
    }

   private:
    static constexpr std::size_t kBatch = 16;  // groups of four: what one inversion costs each row is little then

    struct Entry {
        Fe4 e, f, g, h, eg, fh;
        Fe4 all, before;  // efgh, or 1 where that is zero; the product of those of the entries before
        Lanes vanishes;
    };

    static Fe4 finished(const Entry& p, const Fe4& inverse) {
        const Fe4 i = broadcast(kSqrtM1), over_eg = inverse * p.fh, over_fh = inverse * p.eg;
        const Lanes rotate = odd_mask(p.eg * over_fh);  // T/Z
        const Fe4 ie = i * p.e, ig = i * p.g;
        const Fe4 x = select(rotate, ig, p.e), denominator = select(rotate, p.f, p.h);
        const Lanes negate = odd_mask(x * denominator * over_fh);  // the sign of e/f, or of ig/h
        const Fe4 y = negated_if(negate, select(rotate, ie, p.g));
        const Fe4 factor = select(rotate, p.e, broadcast(kInvSqrtAMinusD) * p.g);
        const Fe4 s = absolute((denominator - y) * (factor * over_eg));
        return select(p.vanishes, broadcast(kZero), s);
    }

    Writer writer_;
    Entry entries_[kBatch];
    std::size_t count_ = 0;
};

// §4.3.4, MAP, up to the root and from it.
struct Elligator4 {
    Fe4 t, r, u, v;

    explicit Elligator4(const Rows& rows) : t(from_rows(rows.at)) {
        const Fe4 one = broadcast(kOne), d = broadcast(kD);
        r = broadcast(kSqrtM1) * squared(t);
        u = (r + one) * broadcast(kOneMinusDSquared);
        v = (minus_one() - r * d) * (r + d);
    }

    RootTask4 task() const { return {u, v}; }

    Extended4 finish(const Root4& ratio) const {
        const Fe4 zero = broadcast(kZero), one = broadcast(kOne);
        const Fe4 s = select(ratio.is_square, ratio.root, carried(zero - absolute(ratio.root * t)));
        const Fe4 c = select(ratio.is_square, minus_one(), r);
        const Fe4 n = (c * (r - one)) * broadcast(kDMinusOneSquared) - v;
        const Fe4 ss = squared(s);
        return extended(Completed4{(s + s) * v, one - ss, n * broadcast(kSqrtADMinusOne), one + ss});
    }

   private:
    static Fe4 minus_one() { return carried(broadcast(kZero) - broadcast(kOne)); }
};

// §4.3.4, the one-way map: rows of 64 uniform bytes to points.
Extended4 mapped(const u8* uniform, std::size_t row, std::size_t count) {
    const Elligator4 low(Rows(uniform, 64, row, count)), high(Rows(uniform + 32, 64, row, count));
    const RootPair4 roots = sqrt_ratio_m1(low.task(), high.task());
    return extended(low.finish(roots.a) + cached(high.finish(roots.b)));
}

// Messages hashed to points, four at a time.
class Hasher {
   public:
    Hasher(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size, std::size_t count)
        : messages_(messages), width_(width), count_(count), expander_(dst, dst_size, 64) {}

    Extended4 at(std::size_t row) const {
        u8 uniform[64 * kLanes];
        const std::size_t size = smaller(kLanes, count_ - row);
        for (std::size_t i = 0; i < size; ++i) {
            expander_.expand(messages_ + width_ * (row + i), width_, uniform + 64 * i);
        }
        return mapped(uniform, 0, size);
    }

   private:
    const u8* messages_;
    std::size_t width_, count_;
    Expander expander_;
};

// The digits of four rows' scalars, computed once if one scalar serves all.
class RowDigits4 {
   public:
    RowDigits4(const u8* scalars, std::size_t step, std::size_t count, Digits (*digits_of)(const u8*))
        : scalars_(scalars), step_(step), count_(count), digits_of_(digits_of) {
        if (step_ == 0 && count_ > 0) set(0);
    }
    ~RowDigits4() { wipe(&digits_, sizeof digits_); }
    RowDigits4(const RowDigits4&) = delete;
    RowDigits4& operator=(const RowDigits4&) = delete;

    const Digits4& at(std::size_t row) {
        if (step_ != 0) set(row);
        return digits_;
    }

   private:
    void set(std::size_t row) {
        const Rows rows(scalars_, step_, row, count_);
        for (int lane = 0; lane < static_cast<int>(kLanes); ++lane) {
            Digits digits = digits_of_(rows.at[lane]);
            digits_.set(lane, digits);
            wipe(&digits, sizeof digits);
        }
    }

    const u8* scalars_;
    std::size_t step_, count_;
    Digits (*digits_of_)(const u8*);
    Digits4 digits_ = {};
};

const PackedBaseTable& packed_generator_table() {
    static const PackedBaseTable table(generator_table());  // built once, by whichever thread comes first
    return table;
}

i64 mul(const u8* points, const u8* scalars, std::size_t step, std::size_t count, u8* out) {
    if (count < 2) return kCurvePortable.mul(points, scalars, step, count, out);
    RowDigits4 digits(scalars, step, count, half_digits);
    Output4 output(out, count);
    const i64 bad = decode_each(points, count, [&](std::size_t row, const Extended4& point) {
        output.add(multiplied(point, digits.at(row)));
    });
    if (bad == kFine) output.flush();
    return bad;
}

void mul_base(const u8* scalars, std::size_t count, u8* out) {
    RowDigits4 digits(scalars, 32, count, half_digits);
    Output4 output(out, count);
    for (std::size_t row = 0; row < count; row += kLanes) {
        output.add(projective(added_base(identity4(), packed_generator_table(), digits.at(row))));
    }
    output.flush();
}

i64 check(const u8* points, std::size_t count) {
    return decode_each(points, count, [](std::size_t, const Extended4&) {});
}

// Encodes four points a group, two groups at a time.
template <class Point>
void encode_each(std::size_t count, u8* out, Point point) {
    Writer writer(out, count);
    for (std::size_t row = 0; row < count; row += 2 * kLanes) {
        const std::size_t next = row + kLanes;
        const Extended4 low = point(row), high = next < count ? point(next) : low;
        const Encoding4 first(low), second(high);
        const RootPair4 roots = sqrt_ratio_m1(first.task(), second.task());
        writer.write(first.finish(roots.a.root));
        writer.write(second.finish(roots.b.root));
    }
}

void from_uniform(const u8* uniform, std::size_t count, u8* out) {
    encode_each(count, out, [&](std::size_t row) { return mapped(uniform, row, count); });
}

void hash(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size, std::size_t count, u8* out) {
    const Hasher hasher(messages, width, dst, dst_size, count);
    encode_each(count, out, [&](std::size_t row) { return hasher.at(row); });
}

void hash_mul(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size, const u8* scalars,
              std::size_t step, std::size_t count, u8* out) {
    const Hasher hasher(messages, width, dst, dst_size, count);
    RowDigits4 digits(scalars, step, count, half_digits);
    Output4 output(out, count);
    for (std::size_t row = 0; row < count; row += kLanes) output.add(multiplied(hasher.at(row), digits.at(row)));
    output.flush();
}

void hash_blind(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size, const u8* scalars,
                std::size_t count, u8* out) {
    const Hasher hasher(messages, width, dst, dst_size, count);
    RowDigits4 digits(scalars, 32, count, scalar_digits);
    Output4 output(out, count);
    for (std::size_t row = 0; row < count; row += kLanes) {
        output.add(projective(added_base(hasher.at(row), packed_generator_table(), digits.at(row))));
    }
    output.flush();
}

i64 unblind(const u8* points, const u8* base, const u8* scalars, std::size_t count, u8* out) {
    Extended point;
    if (!decoded(base, point)) return kBadBase;
    const PackedBaseTable table(computed_base_table(-point));
    RowDigits4 digits(scalars, 32, count, scalar_digits);
    Output4 output(out, count);
    const i64 bad = decode_each(points, count, [&](std::size_t row, const Extended4& start) {
        output.add(projective(added_base(start, table, digits.at(row))));
    });
    if (bad == kFine) output.flush();
    return bad;
}

}  // namespace

const CurveFunctions kCurveAvx2 = {mul, mul_base, check, from_uniform, hash, hash_mul, hash_blind, unblind};

}  // namespace tc

TC_TARGET_POP

#endif
