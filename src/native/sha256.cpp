// SHA-256 (FIPS 180-4), portable and constant time.
#include "sha2.h"

namespace tc {

const u32 kSha256Round[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

namespace {

TC_INLINE u32 rotated(u32 x, int by) { return x >> by | x << (32 - by); }

void compress_block(Sha256State& state, const u8* block) {
    u32 w[16];
    for (int i = 0; i < 16; ++i) w[i] = load32be(block + 4 * i);
    u32 a = state.h[0], b = state.h[1], c = state.h[2], d = state.h[3];
    u32 e = state.h[4], f = state.h[5], g = state.h[6], h = state.h[7];
    for (int start = 0; start < 64; start += 16) {
        TC_UNROLL
        for (int i = 0; i < 16; ++i) {
            if (start != 0) {
                const u32 back2 = w[(i + 14) % 16], back15 = w[(i + 1) % 16];
                w[i] += (rotated(back2, 17) ^ rotated(back2, 19) ^ back2 >> 10) + w[(i + 9) % 16] +
                        (rotated(back15, 7) ^ rotated(back15, 18) ^ back15 >> 3);
            }
            const u32 t1 = h + (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) + (g ^ (e & (f ^ g))) +
                           kSha256Round[start + i] + w[i];
            const u32 t2 = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) + ((a & b) | (c & (a | b)));
            h = g, g = f, f = e, e = d + t1, d = c, c = b, b = a, a = t1 + t2;
        }
    }
    const u32 change[8] = {a, b, c, d, e, f, g, h};
    for (int i = 0; i < 8; ++i) state.h[i] += change[i];
}

void compress(Sha256State& state, const u8* data, std::size_t blocks) {
    for (std::size_t i = 0; i < blocks; ++i) compress_block(state, data + 64 * i);
}

void compress_two(Sha256State& a, const u8* data_a, Sha256State& b, const u8* data_b, std::size_t blocks) {
    compress(a, data_a, blocks);
    compress(b, data_b, blocks);
}

}  // namespace

const Sha256Functions kSha256Portable = {compress, compress_two};

}  // namespace tc
