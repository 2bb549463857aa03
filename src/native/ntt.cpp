// The transform on any processor: Shoup's multiplication by a constant with its precomputed quotient, one word at a time.
#include "ntt.h"

#include <vector>

#include "kernels.h"

namespace tc {
namespace {

struct Factor {
    u64 value, quotient;  // quotient = floor(value · 2^64 / modulus)
};

Factor factor(u64 value, u64 modulus) { return {value, static_cast<u64>((u128{value} << 64) / modulus)}; }

TC_INLINE u64 reduce(u64 x, u64 modulus) { return x - (modulus & mask_of(x >= modulus ? 1 : 0)); }

// x·w modulo the modulus, for any x.
TC_INLINE u64 times(u64 x, const Factor& w, u64 modulus) {
    const u64 quotient = static_cast<u64>(u128{x} * w.quotient >> 64);
    return reduce(x * w.value - quotient * modulus, modulus);
}

std::vector<Factor> factors(const u8* roots, std::size_t size, u64 modulus) {
    std::vector<Factor> made(size);
    for (std::size_t i = 0; i < size; ++i) made[i] = factor(load64le(roots + 8 * i), modulus);
    return made;
}

void load(const u8* from, std::vector<u64>& row) { std::memcpy(row.data(), from, 8 * row.size()); }
void store(u8* to, const std::vector<u64>& row) { std::memcpy(to, row.data(), 8 * row.size()); }

void forward(u8* rows, std::size_t count, std::size_t size, u64 modulus, const u8* roots) {
    const std::vector<Factor> w = factors(roots, size, modulus);
    std::vector<u64> x(size);
    for (std::size_t row = 0; row < count; ++row, rows += 8 * size) {
        load(rows, x);
        for (std::size_t groups = 1, half = size / 2; groups < size; groups *= 2, half /= 2) {
            for (std::size_t group = 0; group < groups; ++group) {
                const Factor& by = w[groups + group];
                u64* low = x.data() + 2 * group * half;
                for (std::size_t i = 0; i < half; ++i) {
                    const u64 u = low[i], v = times(low[i + half], by, modulus);
                    low[i] = reduce(u + v, modulus);
                    low[i + half] = reduce(u + modulus - v, modulus);
                }
            }
        }
        store(rows, x);
    }
    wipe(x.data(), 8 * size);
}

void inverse(u8* rows, std::size_t count, std::size_t size, u64 modulus, const u8* roots, u64 scale) {
    const std::vector<Factor> w = factors(roots, size, modulus);
    const Factor last = factor(scale, modulus);
    std::vector<u64> x(size);
    for (std::size_t row = 0; row < count; ++row, rows += 8 * size) {
        load(rows, x);
        for (std::size_t groups = size / 2, half = 1; groups >= 1; groups /= 2, half *= 2) {
            for (std::size_t group = 0; group < groups; ++group) {
                const Factor& by = w[groups + group];
                u64* low = x.data() + 2 * group * half;
                for (std::size_t i = 0; i < half; ++i) {
                    const u64 u = low[i], v = low[i + half];
                    low[i] = reduce(u + v, modulus);
                    low[i + half] = times(u + modulus - v, by, modulus);
                }
            }
        }
        for (u64& value : x) value = times(value, last, modulus);
        store(rows, x);
    }
    wipe(x.data(), 8 * size);
}

// Barrett with a 64-bit estimate: both factors are below 2^50, so the quotient is right to one.
void multiply(const u8* a, const u8* b, std::size_t b_size, std::size_t size, u64 modulus, u8* out) {
    const u64 estimate = static_cast<u64>((u128{1} << 113) / modulus);  // 2^63 < estimate: the modulus is above 2^49
    for (std::size_t i = 0, j = 0; i < size; ++i, j = j + 1 == b_size ? 0 : j + 1) {
        const u128 product = u128{load64le(a + 8 * i)} * load64le(b + 8 * j);
        const u64 quotient = static_cast<u64>(u128{static_cast<u64>(product >> 49)} * estimate >> 64);
        store64le(out + 8 * i, reduce(reduce(static_cast<u64>(product) - quotient * modulus, modulus), modulus));
    }
}

}  // namespace

const NttFunctions kNttPortable = {forward, inverse, multiply};

void ntt(const Dispatch& with, u8* rows, std::size_t count, std::size_t size, u64 modulus, const u8* roots, u64 scale) {
    if (scale == 0) {
        with.ntt.forward(rows, count, size, modulus, roots);
    } else {
        with.ntt.inverse(rows, count, size, modulus, roots, scale);
    }
}

void ntt_mul(const Dispatch& with, const u8* a, const u8* b, std::size_t b_size, std::size_t size, u64 modulus, u8* out) {
    with.ntt.multiply(a, b, b_size, size, modulus, out);
}

// Values of `width` bits one after the other, the least significant bit first.
void bits_pack(const u8* values, std::size_t count, unsigned width, u8* out) {
    u64 waiting = 0;
    unsigned bits = 0;  // of waiting, below 64
    for (std::size_t i = 0; i < count; ++i) {
        const u64 value = load64le(values + 8 * i);
        waiting |= value << bits;
        bits += width;
        if (bits >= 64) {  // then there were some: a value has fewer than 64
            std::memcpy(out, &waiting, 8);
            out += 8, bits -= 64;
            waiting = value >> (width - bits);
        }
    }
    for (; bits > 0; bits = bits > 8 ? bits - 8 : 0, waiting >>= 8) *out++ = static_cast<u8>(waiting);
}

void bits_unpack(const u8* packed, std::size_t size, std::size_t count, unsigned width, u8* out) {
    u128 waiting = 0;
    unsigned bits = 0;
    const u64 mask = (u64{1} << width) - 1;
    for (std::size_t i = 0, at = 0; i < count; ++i) {
        while (bits < width) {
            if (size - at >= 4) {
                u32 word;
                std::memcpy(&word, packed + at, 4);
                waiting |= u128{word} << bits;
                at += 4, bits += 32;
            } else {
                waiting |= u128{packed[at]} << bits;
                at += 1, bits += 8;
            }
        }
        store64le(out + 8 * i, static_cast<u64>(waiting) & mask);
        waiting >>= width, bits -= width;
    }
}

}  // namespace tc
