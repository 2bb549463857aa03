// Products modulo 2^32 with AVX2, constant time. A word is taken apart as q = low + 2^16·high with a signed low half, so
// that sixteen products with signed bytes take two instructions (VPMADDWD) that also add them in pairs.
#include "pir.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <new>
#include <vector>

TC_TARGET_PUSH("avx2")

namespace tc {
namespace {

using Halves = std::int16_t;

TC_INLINE __m256i load(const void* from) { return _mm256_loadu_si256(static_cast<const __m256i*>(from)); }
TC_INLINE void store(void* to, __m256i value) { _mm256_storeu_si256(static_cast<__m256i*>(to), value); }

TC_INLINE u32 sum_of(__m256i value) {
    __m128i half = _mm_add_epi32(_mm256_castsi256_si128(value), _mm256_extracti128_si256(value, 1));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
    half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1));
    return static_cast<u32>(_mm_cvtsi128_si32(half));
}

TC_INLINE std::size_t least(std::size_t a, std::size_t b) { return a < b ? a : b; }
TC_INLINE Halves low_of(u32 word) { return static_cast<Halves>(word & 0xffff); }
TC_INLINE Halves high_of(u32 word) { return static_cast<Halves>((word + 0x8000) >> 16); }
TC_INLINE u32 word(u8 byte) { return static_cast<u32>(static_cast<std::int32_t>(static_cast<std::int8_t>(byte))); }

// kRows rows of the database at a time: the query comes from the second-level cache, the rows from memory.
template <int kRows>
TC_INLINE void answer_rows(const u8* database, std::size_t columns, const Halves* low, const Halves* high,
                           const u32* query, u32* out, std::size_t stride) {
    __m256i lows[kRows], highs[kRows];
    TC_UNROLL
    for (int r = 0; r < kRows; ++r) lows[r] = highs[r] = _mm256_setzero_si256();
    const std::size_t whole = columns & ~std::size_t{15};
    for (std::size_t j = 0; j < whole; j += 16) {
        const __m256i l = load(low + j), h = load(high + j);
        TC_UNROLL
        for (int r = 0; r < kRows; ++r) {
            const u8* at = database + static_cast<std::size_t>(r) * columns + j;
            const __m256i bytes = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
            lows[r] = _mm256_add_epi32(lows[r], _mm256_madd_epi16(bytes, l));
            highs[r] = _mm256_add_epi32(highs[r], _mm256_madd_epi16(bytes, h));
        }
    }
    TC_UNROLL  // or else the sums would live in memory
    for (int r = 0; r < kRows; ++r) {
        u32 sum = sum_of(lows[r]) + (sum_of(highs[r]) << 16);
        const u8* row = database + static_cast<std::size_t>(r) * columns;
        for (std::size_t j = whole; j < columns; ++j) sum += word(row[j]) * query[j];
        out[static_cast<std::size_t>(r) * stride] = sum;
    }
}

// One query: at the speed of memory. Its results are so many words apart.
void answer_one(const u8* database, std::size_t rows, std::size_t columns, const u32* query, u32* out,
                std::size_t stride) {
    constexpr int kRows = 4;
    std::vector<Halves> low(columns), high(columns);
    for (std::size_t j = 0; j < columns; ++j) {
        low[j] = low_of(query[j]);
        high[j] = high_of(query[j]);
    }
    std::size_t r = 0;
    for (; r + kRows <= rows; r += kRows) {
        const u8* at = database + r * columns;
        answer_rows<kRows>(at, columns, low.data(), high.data(), query, out + r * stride, stride);
    }
    for (; r < rows; ++r) {
        const u8* at = database + r * columns;
        answer_rows<1>(at, columns, low.data(), high.data(), query, out + r * stride, stride);
    }
}

// A matrix of words, of which row j, column k is from[j·down + k·across].
struct Words {
    const u32* from;
    std::size_t down, across;

    TC_INLINE u32 operator()(std::size_t j, std::size_t k) const { return from[j * down + k * across]; }
    TC_INLINE Words at(std::size_t j, std::size_t k) const { return {from + j * down + k * across, down, across}; }
};

// The matrix is cut into blocks of kDeep rows and kWide columns, the database into blocks of kHigh rows: both lie packed
// in the second-level cache, and of the matrix eight columns at a time in the first.
constexpr std::size_t kDeep = 256, kWide = 256, kHigh = 96, kLanes = 8, kPairs = kDeep / 2;
constexpr std::size_t kTall = 6;  // rows of the database at a time: twelve sums, which with what they need fill the registers

struct Packed {
    // For eight columns and two neighbouring rows of the matrix: the low halves of both words, and the high ones.
    alignas(32) u32 halves[kWide / kLanes][kPairs][2][kLanes];
    alignas(32) std::int32_t bytes[kHigh / kTall][kPairs][kTall];  // two neighbouring bytes of each row, as halves

    void pack(const Words& matrix, std::size_t rows, std::size_t width) {
        for (std::size_t k = 0; k < (width + kLanes - 1) / kLanes * kLanes; ++k) {
            for (std::size_t j = 0; j < rows; j += 2) {
                const u32 first = k < width ? matrix(j, k) : 0;
                const u32 second = k < width && j + 1 < rows ? matrix(j + 1, k) : 0;
                u32(&to)[2][kLanes] = halves[k / kLanes][j / 2];
                to[0][k % kLanes] = (first & 0xffff) | second << 16;
                to[1][k % kLanes] = (first + 0x8000) >> 16 | ((second + 0x8000) & 0xffff0000);
            }
        }
    }

    // Up to kHigh rows of the database, of which kDeep or fewer bytes.
    void take(const u8* database, std::size_t rows, std::size_t stride, std::size_t deep) {
        for (std::size_t r = 0; r < (rows + kTall - 1) / kTall * kTall; ++r) {
            std::int32_t* to = &bytes[r / kTall][0][r % kTall];
            const u8* row = database + r * stride;
            std::size_t j = 0;
            for (; r < rows && j + 16 <= deep; j += 16) {
                alignas(32) std::int32_t pairs[8];
                store(pairs, _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(row + j))));
                for (std::size_t i = 0; i < 8; ++i) to[(j / 2 + i) * kTall] = pairs[i];
            }
            for (; j < deep; j += 2) {
                const u32 first = r < rows ? word(row[j]) & 0xffff : 0;
                const u32 second = r < rows && j + 1 < deep ? word(row[j + 1]) << 16 : 0;
                to[j / 2 * kTall] = static_cast<std::int32_t>(first | second);
            }
        }
    }

    // Adds to eight columns of up to kTall rows of the result.
    TC_INLINE void add(std::size_t panel, std::size_t group, std::size_t deep, std::size_t rows, std::size_t lanes,
                       u32* out, std::size_t stride) const {
        __m256i lows[kTall], highs[kTall];
        TC_UNROLL
        for (std::size_t r = 0; r < kTall; ++r) lows[r] = highs[r] = _mm256_setzero_si256();
        for (std::size_t pair = 0; 2 * pair < deep; ++pair) {
            const __m256i l = load(halves[group][pair][0]), h = load(halves[group][pair][1]);
            TC_UNROLL
            for (std::size_t r = 0; r < kTall; ++r) {
                const __m256i factor = _mm256_set1_epi32(bytes[panel][pair][r]);
                lows[r] = _mm256_add_epi32(lows[r], _mm256_madd_epi16(factor, l));
                highs[r] = _mm256_add_epi32(highs[r], _mm256_madd_epi16(factor, h));
                // One row after the other: with all factors loaded first, sums would have to leave the registers.
                asm volatile("" : "+x"(lows[r]), "+x"(highs[r]));
            }
        }
        TC_UNROLL
        for (std::size_t r = 0; r < kTall; ++r) lows[r] = _mm256_add_epi32(lows[r], _mm256_slli_epi32(highs[r], 16));
        if (rows == kTall && lanes == kLanes) {
            TC_UNROLL
            for (std::size_t r = 0; r < kTall; ++r) {
                store(out + r * stride, _mm256_add_epi32(load(out + r * stride), lows[r]));
            }
            return;
        }
        alignas(32) u32 sums[kTall][kLanes];
        TC_UNROLL
        for (std::size_t r = 0; r < kTall; ++r) store(sums[r], lows[r]);
        for (std::size_t r = 0; r < rows; ++r) {
            for (std::size_t lane = 0; lane < lanes; ++lane) out[r * stride + lane] += sums[r][lane];
        }
    }

    // Adds the product of the blocks that were packed.
    void multiply(std::size_t rows, std::size_t deep, std::size_t wide, u32* out, std::size_t stride) const {
        for (std::size_t k = 0; k < wide; k += kLanes) {
            const std::size_t lanes = least(wide - k, kLanes);
            for (std::size_t r = 0; r < rows; r += kTall) {
                add(r / kTall, k / kLanes, deep, least(rows - r, kTall), lanes, out + r * stride + k, stride);
            }
        }
    }
};

void product(const u8* database, std::size_t rows, std::size_t columns, const Words& matrix, std::size_t width,
             u32* out) {
    std::memset(out, 0, 4 * rows * width);
    std::vector<Packed> one(1);  // 310 KB: not for the stack
    Packed& packed = one[0];
    for (std::size_t k = 0; k < width; k += kWide) {
        const std::size_t wide = least(width - k, kWide);
        for (std::size_t j = 0; j < columns; j += kDeep) {
            const std::size_t deep = least(columns - j, kDeep);
            packed.pack(matrix.at(j, k), deep, wide);
            for (std::size_t r = 0; r < rows; r += kHigh) {
                const std::size_t high = least(rows - r, kHigh);
                packed.take(database + r * columns + j, high, columns, deep);
                packed.multiply(high, deep, wide, out + r * width + k, width);
            }
        }
    }
}

void multiply(const u8* database, std::size_t rows, std::size_t columns, const u32* matrix, std::size_t width,
              u32* out) {
    product(database, rows, columns, {matrix, width, 1}, width, out);
}

constexpr std::size_t kManyQueries = 4;  // from which one pass for all is faster than one for each

void answer(const u8* database, std::size_t rows, std::size_t columns, const u32* queries, std::size_t count,
            u32* out) {
    if (count >= kManyQueries) return product(database, rows, columns, {queries, 1, columns}, count, out);
    for (std::size_t k = 0; k < count; ++k) {
        answer_one(database, rows, columns, queries + k * columns, out + k, count);
    }
}

u32 dot(const u32* a, const u32* b, std::size_t count) {
    __m256i sums[4];
    for (__m256i& sum : sums) sum = _mm256_setzero_si256();
    std::size_t i = 0;
    for (; i + 32 <= count; i += 32) {
        TC_UNROLL
        for (std::size_t lane = 0; lane < 4; ++lane) {
            const __m256i product = _mm256_mullo_epi32(load(a + i + 8 * lane), load(b + i + 8 * lane));
            sums[lane] = _mm256_add_epi32(sums[lane], product);
        }
    }
    const __m256i left = _mm256_add_epi32(sums[0], sums[1]), right = _mm256_add_epi32(sums[2], sums[3]);
    u32 sum = sum_of(_mm256_add_epi32(left, right));
    for (; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

}  // namespace

const PirFunctions kPirAvx2 = {answer, multiply, dot};

}  // namespace tc

TC_TARGET_POP

#endif
