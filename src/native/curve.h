// The kernels of ristretto255 (RFC 9496), one set of functions for each instruction set.
#pragma once

#include "platform.h"

namespace tc {

// Elements are 32-byte encodings, scalars 32 bytes of any value, both one after the other. `step` is 32, or 0 if one
// scalar serves every row. Results go to `out`, 32 bytes a row. What returns an i64 returns kFine or the first row that
// is not an element.
struct CurveFunctions {
    i64 (*mul)(const u8* points, const u8* scalars, std::size_t step, std::size_t count, u8* out);
    void (*mul_base)(const u8* scalars, std::size_t count, u8* out);
    i64 (*check)(const u8* points, std::size_t count);
    void (*from_uniform)(const u8* uniform, std::size_t count, u8* out);
    void (*hash)(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size, std::size_t count,
                 u8* out);
    void (*hash_mul)(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size, const u8* scalars,
                     std::size_t step, std::size_t count, u8* out);
    // 2*(H(message) + scalar*G)
    void (*hash_blind)(const u8* messages, std::size_t width, const u8* dst, std::size_t dst_size, const u8* scalars,
                       std::size_t count, u8* out);
    // 2*(point - scalar*base); kBadBase if the base is not an element.
    i64 (*unblind)(const u8* points, const u8* base, const u8* scalars, std::size_t count, u8* out);
};

extern const CurveFunctions kCurvePortable;
#if defined(__x86_64__)
extern const CurveFunctions kCurveAvx2;
#endif

}  // namespace tc
