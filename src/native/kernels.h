// Every kernel, as module.cpp calls it: flat buffers whose lengths were checked, no state, no Python.
//
// A kernel with paths for instruction sets takes a Dispatch, filled by dispatch() from what the caller allows and the
// processor has. To add a path: a source file of its own, an entry in Dispatch, a Feature in the list.
#pragma once

#include <vector>

#include "curve.h"
#include "aes.h"
#include "gf128.h"
#include "ntt.h"
#include "ring.h"
#include "pir.h"
#include "platform.h"
#include "sha2.h"

namespace tc {

constexpr int kAbiVersion = 5;  // kernels/dispatch.py expects the same

enum Feature : u32 {
    kShaNi = 1u << 0,
    kAvx2 = 1u << 1,
    kAesNi = 1u << 8,
    kVaes = 1u << 9,
    kClmul = 1u << 10,
    kFma = 1u << 16,
};

struct NamedFeature {
    const char* name;
    Feature feature;
};
constexpr NamedFeature kFeatures[] = {
    {"sha-ni", kShaNi}, {"avx2", kAvx2}, {"aes-ni", kAesNi}, {"vaes", kVaes}, {"pclmul", kClmul},
    {"fma", kFma}};

struct Dispatch {
    Sha256Functions sha256;
    CurveFunctions curve;
    Aes128Functions aes;
    Gf128Functions gf128;
    PirFunctions pir;
    NttFunctions ntt;
    RingFunctions ring;
};

// The features that this processor has and this build has code for.
u32 detect();

// The best functions within `allowed`; what the processor lacks is left out whatever the caller says.
Dispatch dispatch(u32 allowed);

constexpr i64 kFine = -1;      // no row is at fault; otherwise kernels return the first row that is
constexpr i64 kMalformed = -2;  // offsets that do not lie inside their data

constexpr i64 kBadBase = -3;    // the shared base is not an element

// A sum of public multiples. Variable time.
i64 ristretto255_multiscalar_vartime(const u8* points, const u8* scalars, std::size_t count, u8* out);

// out[i] = a[i] - b[i]. Returns the first i where either is no element, a's before b's.
i64 ristretto255_sub(const u8* a, const u8* b, std::size_t count, u8* out);

void scalar255_reduce(const u8* wide, std::size_t count, u8* out);
void scalar255_mul(const u8* a, const u8* b, std::size_t count, u8* out);
void scalar255_sub(const u8* a, const u8* b, std::size_t count, u8* out);
i64 scalar255_invert(const u8* scalars, std::size_t count, u8* out);

void expand_message_xmd(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size,
                        std::size_t length, std::size_t count, u8* out);
void oprf_finalize(const u8* inputs, std::size_t width, const u8* elements, std::size_t count, u8* out);

struct Column {
    u8 tag;
    bool fixed;
    std::size_t width;    // bytes a cell, if fixed
    const u8* offsets;    // count + 1 int64, at any alignment, if not
    const u8* data;
    std::size_t size;     // bytes of data
};

i64 digest_columns(const Dispatch& with, const u8* prefix, std::size_t prefix_size, const std::vector<Column>& columns,
                   std::size_t count, u8* out);

// Set intersection from VOLE. A block is 16 bytes, at any alignment; what the functions do is said in kernels/__init__.py.
void aes128_ctr(const Dispatch& with, const u8* keys, std::size_t count, std::size_t blocks, u8* out);
void aes128_hash(const Dispatch& with, const u8* key, const u8* rows, std::size_t width, std::size_t count, u8* out);
void aes128_davies_meyer(const Dispatch& with, const u8* keys, const u8* rows, std::size_t count, u8* out);
void gf128_mul(const Dispatch& with, const u8* a, const u8* b, std::size_t step, std::size_t count, u8* out);
void gf128_dot(const Dispatch& with, const u8* a, const u8* b, std::size_t count, u8* out);

struct OkvsShape {
    u32 bins, sparse, dense, capacity;
    std::size_t size() const { return std::size_t{sparse} + dense; }
};

i64 okvs_encode(const Dispatch& with, const u8* hashes, const u8* values, std::size_t keys, const u8* key,
                const OkvsShape& shape, std::size_t first, std::size_t count, u8* out);
void okvs_decode(const Dispatch& with, const u8* hashes, std::size_t keys, const u8* table, const u8* key,
                 const OkvsShape& shape, u8* out);

// Levels below the root of a tree with this many leaves, at least one.
inline unsigned tree_depth(std::size_t leaves) {
    unsigned depth = 0;
    while ((std::size_t{1} << depth) < leaves) ++depth;
    return depth;
}

void pprf_expand(const Dispatch& with, const u8* roots, std::size_t trees, std::size_t leaves, const u8* keys,
                 u8* out, u8* sums);
void pprf_puncture(const Dispatch& with, const u8* sums, const u8* points, std::size_t trees, std::size_t leaves,
                   const u8* keys, u8* out, u8* totals);

void match_rows(const u8* values, std::size_t count, const u8* table, std::size_t rows, std::size_t width,
                const u8* salt, u8* out);  // out: int64, -1 where there is none

void sort_rows(const u8* rows, std::size_t count, std::size_t width, u8* order, u8* sorted);  // order: int64
// out: int64, -1 where there is none. Returns the first row of the table that is out of order.
i64 match_sorted(const u8* values, std::size_t count, const u8* table, std::size_t rows, std::size_t width, u8* out);

void code_convolve(const Dispatch& with, const u8* key, u8* vector, std::size_t size);
void code_expand(const Dispatch& with, const u8* vector, std::size_t size, const u8* systematic, const u8* key,
                 std::size_t first, std::size_t count, u8* out);

// Ring learning with errors. Words of 64 bits; scale: 0 for the forward transform, else 1/size modulo the modulus.
void ntt(const Dispatch& with, u8* rows, std::size_t count, std::size_t size, u64 modulus, const u8* roots, u64 scale);
void ntt_mul(const Dispatch& with, const u8* a, const u8* b, std::size_t b_size, std::size_t size, u64 modulus, u8* out);
void bits_pack(const u8* values, std::size_t count, unsigned width, u8* out);
void bits_unpack(const u8* packed, std::size_t size, std::size_t count, unsigned width, u8* out);
// Verification. Products are taken modulo 2^32; a database is rows of signed bytes.
void pir_answer(const Dispatch& with, const u8* database, std::size_t rows, std::size_t columns, const u32* queries,
                std::size_t count, u32* out);
void pir_multiply(const Dispatch& with, const u8* database, std::size_t rows, std::size_t columns, const u32* matrix,
                  std::size_t width, u32* out);
void word_product(const Dispatch& with, const u32* matrix, std::size_t rows, std::size_t columns, const u32* vector,
                  u32* out);
// `rows` rows of words from each of `count` keys (AES-128 in counter mode), each times the secret.
void lwe_product(const Dispatch& with, const u8* keys, std::size_t count, std::size_t rows, const u32* secret,
                 std::size_t dimension, u32* out);

}  // namespace tc
