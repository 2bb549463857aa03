// AES-128 (FIPS 197) over batches of blocks, one implementation for each instruction set. All are constant time.
#pragma once

#include "platform.h"

namespace tc {

constexpr std::size_t kBlockSize = 16;

struct Aes128Key {
    alignas(32) u8 round[11][16];
};

struct Aes128Functions {
    void (*schedule)(Aes128Key& key, const u8* bytes);
    void (*encrypt)(const Aes128Key& key, const u8* in, u8* out, std::size_t blocks);  // in may be out
    // out[i] = AES under keys[i] of rows[i] ^ rows[i]; out may be rows.
    void (*davies_meyer)(const u8* keys, const u8* rows, u8* out, std::size_t blocks);
};

extern const Aes128Functions kAes128Portable;
#if defined(__x86_64__)
extern const Aes128Functions kAes128Ni;
extern const Aes128Functions kAes128Vaes;
#endif

// A block as two words that the compiler keeps in a vector register.
typedef u64 Block __attribute__((vector_size(16)));

TC_INLINE Block load_block(const u8* from) {
    Block block;
    std::memcpy(&block, from, 16);
    return block;
}

TC_INLINE void store_block(u8* to, Block block) { std::memcpy(to, &block, 16); }

// Matyas-Meyer-Oseas of one block a row: out = AES(in) ^ in. in and out must not overlap.
inline void aes128_feed_forward(const Aes128Functions& aes, const Aes128Key& key, const u8* in, u8* out,
                                std::size_t blocks) {
    constexpr std::size_t kBatch = 64;  // in and out stay in the first cache
    for (std::size_t done = 0; done < blocks; done += kBatch) {
        const std::size_t now = blocks - done < kBatch ? blocks - done : kBatch;
        const u8* from = in + kBlockSize * done;
        u8* to = out + kBlockSize * done;
        aes.encrypt(key, from, to, now);
        for (std::size_t i = 0; i < now; ++i) {
            store_block(to + kBlockSize * i, load_block(to + kBlockSize * i) ^ load_block(from + kBlockSize * i));
        }
    }
}

// Blocks first, first + 1, ... as 128-bit little-endian integers, encrypted.
inline void aes128_counters(const Aes128Functions& aes, const Aes128Key& key, u64 first, std::size_t blocks, u8* out) {
    for (std::size_t i = 0; i < blocks; ++i) store_block(out + kBlockSize * i, Block{first + i, 0});
    aes.encrypt(key, out, out, blocks);
}

}  // namespace tc
