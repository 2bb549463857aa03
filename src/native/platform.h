// What the kernels need from the compiler, said once: integer types, hints, and barriers for constant-time code.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#if !defined(__GNUC__) || !defined(__SIZEOF_INT128__) || !(defined(__x86_64__) || defined(__aarch64__))
#error "The kernels need gcc 11 or clang 14 on x86-64 or aarch64; elsewhere the reference is used."
#endif
#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "The kernels assume little-endian integers; elsewhere the reference is used."
#endif

#define TC_INLINE inline __attribute__((always_inline))

// Unroll the loop that follows completely, so that small arrays live in registers.
#if defined(__clang__)
#define TC_UNROLL _Pragma("clang loop unroll(full)")
#else
#define TC_UNROLL _Pragma("GCC unroll 64")
#endif

// What stands between these, and only that, may use instruction sets that not every processor has. Includes come before:
// what a header of the standard library compiles here would be shared with files that may not.
#define TC_PRAGMA(text) _Pragma(#text)
#if defined(__clang__)
#define TC_TARGET_PUSH(sets) TC_PRAGMA(clang attribute push(__attribute__((target(sets))), apply_to = function))
#define TC_TARGET_POP TC_PRAGMA(clang attribute pop)
#else
#define TC_TARGET_PUSH(sets) TC_PRAGMA(GCC push_options) TC_PRAGMA(GCC target(sets))
#define TC_TARGET_POP TC_PRAGMA(GCC pop_options)
#endif

namespace tc {

using u8 = std::uint8_t;
using u32 = std::uint32_t;
using u64 = std::uint64_t;
using i64 = std::int64_t;
__extension__ typedef unsigned __int128 u128;

// The compiler must not learn that a mask is 0 or ~0 and turn a selection into a branch.
TC_INLINE u64 opaque(u64 value) {
    __asm__("" : "+r"(value));
    return value;
}

// ~0 if bit is 1, 0 if bit is 0.
TC_INLINE u64 mask_of(u64 bit) { return 0 - opaque(bit); }

// Erase secrets from memory that is about to be given up; the barrier keeps the store alive.
inline void wipe(void* memory, std::size_t size) {
    std::memset(memory, 0, size);
    __asm__ volatile("" : : "r"(memory) : "memory");
}

TC_INLINE u64 load64le(const u8* from) {
    u64 value;
    std::memcpy(&value, from, 8);
    return value;
}

TC_INLINE void store64le(u8* to, u64 value) { std::memcpy(to, &value, 8); }

TC_INLINE u64 load64be(const u8* from) { return __builtin_bswap64(load64le(from)); }

TC_INLINE void store64be(u8* to, u64 value) { store64le(to, __builtin_bswap64(value)); }

TC_INLINE u32 load32be(const u8* from) {
    u32 value;
    std::memcpy(&value, from, 4);
    return __builtin_bswap32(value);
}

TC_INLINE void store32be(u8* to, u32 value) {
    value = __builtin_bswap32(value);
    std::memcpy(to, &value, 4);
}

}  // namespace tc
