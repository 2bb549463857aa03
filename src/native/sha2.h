// SHA-256 and SHA-512 (FIPS 180-4): compression functions, and SHA-512 of a message given in pieces.
#pragma once

#include "platform.h"

namespace tc {

struct Sha256State {
    u32 h[8];
};

constexpr Sha256State kSha256Initial = {
    {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19}};

extern const u32 kSha256Round[64];

struct Sha256Functions {
    // Absorb `blocks` blocks of 64 bytes.
    void (*compress)(Sha256State& state, const u8* data, std::size_t blocks);
    // The same for two independent messages, whose latencies hide each other.
    void (*compress_two)(Sha256State& a, const u8* data_a, Sha256State& b, const u8* data_b, std::size_t blocks);
};

extern const Sha256Functions kSha256Portable;
#if defined(__x86_64__)
extern const Sha256Functions kSha256ShaNi;
#endif

struct Sha512State {
    u64 h[8];
};

constexpr Sha512State kSha512Initial = {
    {0x6a09e667f3bcc908, 0xbb67ae8584caa73b, 0x3c6ef372fe94f82b, 0xa54ff53a5f1d36f1, 0x510e527fade682d1,
     0x9b05688c2b3e6c1f, 0x1f83d9abfb41bd6b, 0x5be0cd19137e2179}};

void sha512_compress(Sha512State& state, const u8* block);

class Sha512 {
   public:
    // A fresh hash, or one that goes on after `absorbed` bytes, a multiple of 128.
    explicit Sha512(const Sha512State& state = kSha512Initial, u64 absorbed = 0) : state_(state), size_(absorbed) {}

    void update(const u8* data, std::size_t size);
    void update(u8 byte) { update(&byte, 1); }
    void finish(u8* out);  // 64 bytes

   private:
    Sha512State state_;
    u64 size_;  // bytes so far
    u8 block_[128];
};

}  // namespace tc
