// GF(2^128) with x^128 + x^7 + x^2 + x + 1, over batches; bit i of a little-endian block is the coefficient of x^i.
#pragma once

#include "platform.h"

namespace tc {

struct Gf128Functions {
    // out[i] = a[i] * b[step * i], step in bytes; out may be a. Constant time.
    void (*mul)(const u8* a, const u8* b, std::size_t step, std::size_t count, u8* out);
    // out = a[0] * b[0] + a[1] * b[1] + ... Constant time.
    void (*dot)(const u8* a, const u8* b, std::size_t count, u8* out);
};

extern const Gf128Functions kGf128Portable;
#if defined(__x86_64__)
extern const Gf128Functions kGf128Clmul;
#endif

}  // namespace tc
