// The number-theoretic transform over a prime below 2^50, one implementation for each instruction set, constant time.
#pragma once

#include "platform.h"

namespace tc {

// rows of `size` words below the modulus, transformed in place. roots: size words, powers of a 2·size-th root of one in
// bit-reversed order (forward), or of its inverse; scale: 1/size modulo the modulus, for the way back.
struct NttFunctions {
    void (*forward)(u8* rows, std::size_t count, std::size_t size, u64 modulus, const u8* roots);
    void (*inverse)(u8* rows, std::size_t count, std::size_t size, u64 modulus, const u8* roots, u64 scale);
    void (*multiply)(const u8* a, const u8* b, std::size_t b_size, std::size_t size, u64 modulus, u8* out);
};

extern const NttFunctions kNttPortable;
#if defined(__x86_64__)
extern const NttFunctions kNttFma;
#endif

}  // namespace tc
