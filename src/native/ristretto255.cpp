// ristretto255 (RFC 9496) over batches: decode, encode, one-way map, multiplication. Constant time, but for which row
// is rejected, and but for the function whose name says otherwise.
#include <memory>
#include <vector>

#include "kernels.h"
#include "point.h"
#include "xmd.h"

namespace tc {

// Odd digits first, 16 times them, then the others.
Extended added_base(const Extended& start, const BaseTable& table, const Digits& digits) {
    Extended total = kIdentity;
    for (int i = 1; i < 64; i += 2) {
        total = extended(total + lookup(table.entry[i / 2], kAffineCachedIdentity, digits.digit[i]));
    }
    Projective times16 = projective(total);
    for (int j = 0; j < 3; ++j) times16 = projective(doubled(times16));
    total = extended(extended(doubled(times16)) + cached(start));
    for (int i = 0; i < 64; i += 2) {
        total = extended(total + lookup(table.entry[i / 2], kAffineCachedIdentity, digits.digit[i]));
    }
    return total;
}

// Projective first, then Montgomery's trick: one inversion for all entries, which no Z can spoil, since none is zero.
BaseTable computed_base_table(const Extended& point) {
    constexpr int kEntries = 256;
    std::vector<Extended> multiples(kEntries);
    std::vector<Fe> before(kEntries);  // the product of the Z before
    Extended power = point;            // 256^i * P
    Fe product = kOne;
    for (int i = 0; i < 32; ++i) {
        const Cached step = cached(power);
        for (int j = 0; j < 8; ++j) {
            Extended& multiple = multiples[static_cast<std::size_t>(8 * i + j)];
            multiple = j == 0 ? power : extended(multiples[static_cast<std::size_t>(8 * i + j - 1)] + step);
            before[static_cast<std::size_t>(8 * i + j)] = product;
            product = product * multiple.z;
        }
        for (int j = 0; j < 8; ++j) power = extended(doubled(projective(power)));
    }
    BaseTable table = {};
    Fe inverse = inverted(product);
    for (int i = kEntries - 1; i >= 0; --i) {
        const Extended& multiple = multiples[static_cast<std::size_t>(i)];
        const Fe z_inverse = inverse * before[static_cast<std::size_t>(i)];
        const Fe x = multiple.x * z_inverse, y = multiple.y * z_inverse;
        table.entry[i / 8][i % 8] = {carried(y + x), carried(y - x), x * y * k2D};
        inverse = inverse * multiple.z;
    }
    return table;
}

const BaseTable& generator_table() {
    static const BaseTable table = computed_base_table(kGenerator);  // built once, by whichever thread comes first
    return table;
}

namespace {

// §4.3.1, up to the root and from it.
struct Decoding {
    Fe s, u1, u2, u2_squared, v;
    u64 well_formed;  // mask: the bytes are below p and even

    explicit Decoding(const u8* bytes) : s(from_bytes(bytes)) {
        u8 canonical[32];
        to_bytes(canonical, s);
        u64 difference = bytes[0] & 1;
        for (int i = 0; i < 32; i += 8) difference |= load64le(canonical + i) ^ load64le(bytes + i);
        well_formed = mask_of(((difference | (0 - difference)) >> 63) ^ 1);
        const Fe ss = squared(s);
        u1 = carried(kOne - ss), u2 = kOne + ss, u2_squared = squared(u2);
        v = carried(-(kD * squared(u1)) - u2_squared);
    }

    RootTask task() const { return {kOne, v * u2_squared}; }

    // All ones if the encoding is canonical and of an element; the point means nothing otherwise.
    u64 finish(const Root& inverse, Extended& point) const {
        const Fe den_x = inverse.root * u2, den_y = inverse.root * den_x * v;
        const Fe x = absolute((s + s) * den_x), y = u1 * den_y, t = x * y;
        point = {x, y, kOne, t};
        return well_formed & inverse.is_square & ~odd_mask(t) & ~zero_mask(y);
    }
};

// Decodes rows in order, two at a time.
class Input {
   public:
    Input(const u8* points, std::size_t count) : points_(points), count_(count) {}

    // False if the row, which must be the one after the last, is not an element.
    bool next(std::size_t row, Extended& point) {
        if (row % 2 == 0) {
            const Decoding a(points_ + 32 * row), b(points_ + 32 * (row + 1 < count_ ? row + 1 : row));
            const RootPair roots = sqrt_ratio_m1(a.task(), b.task());
            valid_[0] = a.finish(roots.a, point_[0]);
            valid_[1] = b.finish(roots.b, point_[1]);
        }
        point = point_[row % 2];
        return valid_[row % 2] != 0;
    }

   private:
    const u8* points_;
    std::size_t count_;
    Extended point_[2];
    u64 valid_[2];
};

// §4.3.2, for any point: costs an inverse square root.
void encode(const Extended& p, u8* bytes) {
    const Fe u1 = (p.z + p.y) * (p.z - p.y), u2 = p.x * p.y;
    const Fe inverse = sqrt_ratio_m1(RootTask(kOne, u1 * squared(u2))).root;
    const Fe den1 = inverse * u1, den2 = inverse * u2, z_inverse = den1 * den2 * p.t;
    const u64 rotate = odd_mask(p.t * z_inverse);
    const Fe x = select(rotate, p.y * kSqrtM1, p.x);
    const Fe y = select(rotate, p.x * kSqrtM1, p.y);
    const Fe den = select(rotate, den1 * kInvSqrtAMinusD, den2);
    to_bytes(bytes, absolute(den * (p.z - negated_if(odd_mask(x * z_inverse), y))));
}

// Encodes doubles: 2P has an encoding that needs no square root, and a batch of them needs a single inversion.
//
// Doubling P gives (e/f, g/h) with e = 2XY, f = Y^2 - X^2, g = Y^2 + X^2, h = 2Z^2 - f. On the curve f = Z^2 + dT^2, so
// that g^2 - f^2 = e^2 and h^2 - f^2 = -d*e^2, hence h^2 - g^2 = (a - d)*e^2 with a = -1. The radicand of §4.3.2 at
// X = eh, Y = fg, Z = fh, T = eg is therefore a square times a - d:
//     u1 * u2^2 = f^2 * (h^2 - g^2) * (efgh)^2 = (a - d) * (ef * efgh)^2,
// and its steps become, up to a sign that the last of them removes, with r = 1/sqrt(a - d):
//     as it is: s = |(h -+ g) * r / e|, the sign from e/f;   rotated: s = |(f -+ ie) / g|, the sign from ig/h.
class DoubleEncoder {
   public:
    static constexpr std::size_t kBatch = 64;

    // Queue the double of p for the next 32 bytes of the output.
    void add(const Projective& p) {
        const Completed d = doubled(p);
        Entry& entry = entries_[count_++];
        entry.e = carried(d.x), entry.g = carried(d.y), entry.f = carried(d.z), entry.h = carried(d.t);
        entry.eg = entry.e * entry.g, entry.fh = entry.f * entry.h;
    }

    // Encode what is queued.
    void flush(u8* out) {
        Fe product = kOne;
        for (std::size_t i = 0; i < count_; ++i) {
            Entry& entry = entries_[i];
            const Fe all = entry.eg * entry.fh;
            entry.vanishes = zero_mask(all);  // 2P is the identity, and s = 0
            entry.all = select(entry.vanishes, kOne, all);
            entry.before = product;
            product = product * entry.all;
        }
        Fe inverse = inverted(product);
        for (std::size_t i = count_; i-- > 0;) {
            const Entry& entry = entries_[i];
            write(entry, inverse * entry.before, out + 32 * i);
            inverse = inverse * entry.all;
        }
        count_ = 0;
    }

    bool full() const { return count_ == kBatch; }
    std::size_t count() const { return count_; }

   private:
    struct Entry {
        Fe e, f, g, h, eg, fh;
        Fe all, before;  // efgh, or 1 if that is zero; the product of those of the entries before
        u64 vanishes;
    };

    static void write(const Entry& p, const Fe& inverse, u8* bytes) {
        const Fe over_eg = inverse * p.fh, over_fh = inverse * p.eg;
        const u64 rotate = odd_mask(p.eg * over_fh);  // T/Z
        const Fe ie = kSqrtM1 * p.e, ig = kSqrtM1 * p.g;
        const Fe x = select(rotate, ig, p.e), denominator = select(rotate, p.f, p.h);
        const u64 negate = odd_mask(x * denominator * over_fh);  // the sign of e/f, or of ig/h
        const Fe y = negated_if(negate, select(rotate, ie, p.g));
        const Fe factor = select(rotate, p.e, kInvSqrtAMinusD * p.g);
        const Fe s = absolute((denominator - y) * (factor * over_eg));
        to_bytes(bytes, select(p.vanishes, kZero, s));
    }

    Entry entries_[kBatch];
    std::size_t count_ = 0;
};

// §4.3.4, MAP, up to the root and from it.
struct Elligator {
    Fe t, r, u, v;

    explicit Elligator(const u8* bytes) : t(from_bytes(bytes)) {
        r = kSqrtM1 * squared(t);
        u = (r + kOne) * kOneMinusDSquared;
        v = (-kOne - r * kD) * (r + kD);
    }

    RootTask task() const { return {u, v}; }

    Extended finish(const Root& ratio) const {
        const Fe other = carried(-absolute(ratio.root * t));
        const Fe s = select(ratio.is_square, ratio.root, other);
        const Fe c = select(ratio.is_square, carried(-kOne), r);
        const Fe n = carried(c * (r - kOne) * kDMinusOneSquared - v);
        const Fe ss = squared(s);
        return extended(Completed{(s + s) * v, kOne - ss, n * kSqrtADMinusOne, kOne + ss});  // w0/w1, w2/w3
    }
};

// §4.3.4, the one-way map: 64 uniform bytes to a point.
Extended mapped(const u8* uniform) {
    const Elligator low(uniform), high(uniform + 32);
    const RootPair roots = sqrt_ratio_m1(low.task(), high.task());
    return extended(low.finish(roots.a) + cached(high.finish(roots.b)));
}

// The digits of every row's scalar, computed once if one scalar serves all.
class RowDigits {
   public:
    RowDigits(const u8* scalars, std::size_t step, std::size_t count) : scalars_(scalars), step_(step) {
        if (step_ == 0 && count > 0) digits_ = half_digits(scalars_);
    }
    ~RowDigits() { wipe(&digits_, sizeof digits_); }
    RowDigits(const RowDigits&) = delete;
    RowDigits& operator=(const RowDigits&) = delete;

    const Digits& at(std::size_t row) {
        if (step_ != 0) digits_ = half_digits(scalars_ + step_ * row);
        return digits_;
    }

   private:
    const u8* scalars_;
    std::size_t step_;
    Digits digits_ = {};
};

// Collects doubles and writes their encodings in order.
class Output {
   public:
    explicit Output(u8* out) : out_(out) {}

    void add(const Projective& p) {
        encoder_.add(p);
        if (encoder_.full()) flush();
    }

    void flush() {
        const std::size_t count = encoder_.count();
        encoder_.flush(out_);
        out_ += 32 * count;
    }

   private:
    u8* out_;
    DoubleEncoder encoder_;
};

// A sum of multiples by bucketing signed digits of kWidth bits (Pippenger's method). Variable time.
template <int kWidth>
class Buckets {
   public:
    explicit Buckets(std::size_t most) : points_(most), digits_(most * kWindows) {}

    // points[i] decoded, scalars[i] below the order.
    void set(std::size_t i, const Extended& point, const Scalar& scalar) {
        points_[i] = {point.y + point.x, point.y - point.x, point.t * k2D};
        int carry = 0;
        for (int window = 0; window < kWindows; ++window) {
            const int bit = kWidth * window, word = bit / 64, shift = bit % 64;
            u64 bits = scalar.v[word] >> shift;
            if (shift > 64 - kWidth && word < 3) bits |= scalar.v[word + 1] << (64 - shift);
            carry += static_cast<int>(bits & ((1 << kWidth) - 1));
            const int next = (carry + kHalf) >> kWidth;
            digits_[i * kWindows + static_cast<std::size_t>(window)] = static_cast<short>(carry - (next << kWidth));
            carry = next;
        }
    }

    Extended sum(std::size_t count) {
        Extended total = kIdentity;
        for (int window = kWindows - 1; window >= 0; --window) {
            for (int j = 0; j < kWidth; ++j) total = extended(doubled(projective(total)));
            total = extended(total + cached(window_sum(static_cast<std::size_t>(window), count)));
        }
        return total;
    }

   private:
    static constexpr int kHalf = 1 << (kWidth - 1);
    static constexpr int kWindows = 253 / kWidth + 1;  // room for the last carry of a 253-bit scalar

    Extended window_sum(std::size_t window, std::size_t count) {
        for (Extended& bucket : buckets_) bucket = kIdentity;
        for (std::size_t i = 0; i < count; ++i) {
            const int digit = digits_[i * kWindows + window];
            if (digit == 0) continue;
            Extended& bucket = buckets_[(digit > 0 ? digit : -digit) - 1];
            bucket = extended(bucket + negated_if(digit < 0 ? ~u64{0} : 0, points_[i]));
        }
        // bucket[j] counts j + 1 times: add up the running sums from the top.
        Extended running = kIdentity, total = kIdentity;
        for (int j = kHalf - 1; j >= 0; --j) {
            running = extended(running + cached(buckets_[j]));
            total = extended(total + cached(running));
        }
        return total;
    }

    std::vector<AffineCached> points_;
    std::vector<short> digits_;
    Extended buckets_[kHalf];
};

// The sum of all multiples, in parts.
template <int kWidth>
i64 multiscalar(const u8* points, const u8* scalars, std::size_t count, u8* out) {
    constexpr std::size_t kPart = 1024;  // bounds the memory; more would hardly be faster
    Buckets<kWidth> buckets(count < kPart ? count : kPart);
    Input input(points, count);
    Extended total = kIdentity;
    for (std::size_t start = 0; start < count; start += kPart) {
        const std::size_t size = count - start < kPart ? count - start : kPart;
        for (std::size_t i = 0; i < size; ++i) {
            Extended point;
            if (!input.next(start + i, point)) return static_cast<i64>(start + i);
            buckets.set(i, point, reduced(load_scalar(scalars + 32 * (start + i))));
        }
        total = extended(total + cached(buckets.sum(size)));
    }
    encode(total, out);
    return kFine;
}

i64 mul(const u8* points, const u8* scalars, std::size_t step, std::size_t count, u8* out) {
    RowDigits digits(scalars, step, count);
    Input input(points, count);
    Output output(out);
    for (std::size_t i = 0; i < count; ++i) {
        Extended point;
        if (!input.next(i, point)) return static_cast<i64>(i);
        output.add(multiplied(point, digits.at(i)));
    }
    output.flush();
    return kFine;
}

void mul_base(const u8* scalars, std::size_t count, u8* out) {
    RowDigits digits(scalars, 32, count);
    Output output(out);
    for (std::size_t i = 0; i < count; ++i) {
        output.add(projective(added_base(kIdentity, generator_table(), digits.at(i))));
    }
    output.flush();
}

i64 check(const u8* points, std::size_t count) {
    Input input(points, count);
    for (std::size_t i = 0; i < count; ++i) {
        Extended point;
        if (!input.next(i, point)) return static_cast<i64>(i);
    }
    return kFine;
}

void from_uniform(const u8* uniform, std::size_t count, u8* out) {
    for (std::size_t i = 0; i < count; ++i) encode(mapped(uniform + 64 * i), out + 32 * i);
}

void hash(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size, std::size_t count, u8* out) {
    const Expander expander(dst, dst_size, 64);
    for (std::size_t i = 0; i < count; ++i) {
        u8 uniform[64];
        expander.expand(messages + width * i, width, uniform);
        encode(mapped(uniform), out + 32 * i);
    }
}

void hash_mul(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size, const u8* scalars,
              std::size_t step, std::size_t count, u8* out) {
    const Expander expander(dst, dst_size, 64);
    RowDigits digits(scalars, step, count);
    Output output(out);
    for (std::size_t i = 0; i < count; ++i) {
        u8 uniform[64];
        expander.expand(messages + width * i, width, uniform);
        output.add(multiplied(mapped(uniform), digits.at(i)));
    }
    output.flush();
}

void hash_blind(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size, const u8* scalars,
                std::size_t count, u8* out) {
    const Expander expander(dst, dst_size, 64);
    Output output(out);
    for (std::size_t i = 0; i < count; ++i) {
        u8 uniform[64];
        expander.expand(messages + width * i, width, uniform);
        Digits digits = scalar_digits(scalars + 32 * i);
        output.add(projective(added_base(mapped(uniform), generator_table(), digits)));
        wipe(&digits, sizeof digits);
    }
    output.flush();
}

i64 unblind(const u8* points, const u8* base, const u8* scalars, std::size_t count, u8* out) {
    Extended negative;
    if (!decoded(base, negative)) return kBadBase;
    const BaseTable table = computed_base_table(-negative);
    Input input(points, count);
    Output output(out);
    for (std::size_t i = 0; i < count; ++i) {
        Extended point;
        if (!input.next(i, point)) return static_cast<i64>(i);
        Digits digits = scalar_digits(scalars + 32 * i);
        output.add(projective(added_base(point, table, digits)));
        wipe(&digits, sizeof digits);
    }
    output.flush();
    return kFine;
}

}  // namespace

const CurveFunctions kCurvePortable = {mul, mul_base, check, from_uniform, hash, hash_mul, hash_blind, unblind};

bool decoded(const u8* bytes, Extended& point) {
    const Decoding decoding(bytes);
    return decoding.finish(sqrt_ratio_m1(decoding.task()), point) != 0;
}

i64 ristretto255_sub(const u8* a, const u8* b, std::size_t count, u8* out) {
    for (std::size_t i = 0; i < count; ++i) {
        Extended left, right;
        if (!decoded(a + 32 * i, left) || !decoded(b + 32 * i, right)) return static_cast<i64>(i);
        encode(extended(left + cached(-right)), out + 32 * i);
    }
    return kFine;
}

i64 ristretto255_multiscalar_vartime(const u8* points, const u8* scalars, std::size_t count, u8* out) {
    // A window costs an addition for each point and two for each bucket: few points want few buckets.
    if (count < 16) return multiscalar<3>(points, scalars, count, out);
    if (count < 256) return multiscalar<5>(points, scalars, count, out);
    return multiscalar<7>(points, scalars, count, out);
}

}  // namespace tc
