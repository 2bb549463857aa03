// Products modulo 2^32 of a database of signed bytes, as SimplePIR takes them, and of matrices of 32-bit words.
#pragma once

#include "platform.h"

namespace tc {

struct PirFunctions {
    // out[r][k] = sum over j of database[r][j]·queries[k][j], k < count.
    void (*answer)(const u8* database, std::size_t rows, std::size_t columns, const u32* queries, std::size_t count,
                   u32* out);
    // out[r][k] = sum over j of database[r][j]·matrix[j][k], k < width.
    void (*multiply)(const u8* database, std::size_t rows, std::size_t columns, const u32* matrix, std::size_t width,
                     u32* out);
    // The inner product of two vectors of words.
    u32 (*dot)(const u32* a, const u32* b, std::size_t count);
};

extern const PirFunctions kPirPortable;
#if defined(__x86_64__)
extern const PirFunctions kPirAvx2;
#endif

}  // namespace tc
