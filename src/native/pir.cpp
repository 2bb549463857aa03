// Products modulo 2^32 without instruction sets, and products with a matrix that is expanded from keys. What is read
// where depends on sizes only: constant time.
#include "pir.h"

#include "kernels.h"

namespace tc {
namespace {

TC_INLINE u32 word(u8 byte) { return static_cast<u32>(static_cast<std::int32_t>(static_cast<std::int8_t>(byte))); }

void answer(const u8* database, std::size_t rows, std::size_t columns, const u32* queries, std::size_t count,
            u32* out) {
    for (std::size_t r = 0; r < rows; ++r) {
        const u8* row = database + r * columns;
        for (std::size_t k = 0; k < count; ++k) {
            const u32* query = queries + k * columns;
            u32 sum = 0;
            for (std::size_t j = 0; j < columns; ++j) sum += word(row[j]) * query[j];
            out[r * count + k] = sum;
        }
    }
}

void multiply(const u8* database, std::size_t rows, std::size_t columns, const u32* matrix, std::size_t width,
              u32* out) {
    constexpr std::size_t kBlock = 64;  // rows of the matrix that stay in the cache while all rows of the database pass
    std::memset(out, 0, 4 * rows * width);
    for (std::size_t first = 0; first < columns; first += kBlock) {
        const std::size_t last = first + kBlock < columns ? first + kBlock : columns;
        for (std::size_t r = 0; r < rows; ++r) {
            u32* to = out + r * width;
            for (std::size_t j = first; j < last; ++j) {
                const u32 factor = word(database[r * columns + j]);
                const u32* from = matrix + j * width;
                for (std::size_t k = 0; k < width; ++k) to[k] += factor * from[k];
            }
        }
    }
}

u32 dot(const u32* a, const u32* b, std::size_t count) {
    u32 sum = 0;
    for (std::size_t i = 0; i < count; ++i) sum += a[i] * b[i];
    return sum;
}

}  // namespace

const PirFunctions kPirPortable = {answer, multiply, dot};

void pir_answer(const Dispatch& with, const u8* database, std::size_t rows, std::size_t columns, const u32* queries,
                std::size_t count, u32* out) {
    with.pir.answer(database, rows, columns, queries, count, out);
}

void pir_multiply(const Dispatch& with, const u8* database, std::size_t rows, std::size_t columns, const u32* matrix,
                  std::size_t width, u32* out) {
    with.pir.multiply(database, rows, columns, matrix, width, out);
}

void word_product(const Dispatch& with, const u32* matrix, std::size_t rows, std::size_t columns, const u32* vector,
                  u32* out) {
    for (std::size_t r = 0; r < rows; ++r) out[r] = with.pir.dot(matrix + r * columns, vector, columns);
}

void lwe_product(const Dispatch& with, const u8* keys, std::size_t count, std::size_t rows, const u32* secret,
                 std::size_t dimension, u32* out) {
    std::vector<u32> row(dimension);
    const std::size_t blocks = dimension / 4;
    for (std::size_t i = 0; i < count; ++i) {
        Aes128Key key;
        with.aes.schedule(key, keys + kBlockSize * i);
        for (std::size_t r = 0; r < rows; ++r) {
            aes128_counters(with.aes, key, r * blocks, blocks, reinterpret_cast<u8*>(row.data()));
            out[i * rows + r] = with.pir.dot(row.data(), secret, dimension);
        }
    }
}

}  // namespace tc
