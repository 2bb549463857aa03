// AES-128 without tables: 128 blocks at a time, bit by bit.
//
// Bit b of byte p of the state of all blocks is one vector of 128 bits, a block a bit. Then ShiftRows renames vectors,
// MixColumns adds them, and the S-box is arithmetic in GF(2^8) on eight of them: x^254 by multiplying and squaring, and
// an affine map (FIPS 197 §5.1). No look-up, no branch: constant time.
#include "aes.h"

#include "kernels.h"

namespace tc {
namespace {

constexpr std::size_t kLanes = 128;  // blocks at a time
typedef Block Bits;                  // one bit of each

struct Byte {  // in GF(2^8) modulo x^8 + x^4 + x^3 + x + 1; bit[i] is the coefficient of x^i
    Bits bit[8];
};

struct State {
    Byte byte[16];
};

TC_INLINE Byte reduced(Bits (&wide)[15]) {
    for (int i = 14; i >= 8; --i) {
        wide[i - 8] ^= wide[i];
        wide[i - 7] ^= wide[i];
        wide[i - 5] ^= wide[i];
        wide[i - 4] ^= wide[i];
    }
    Byte result;
    for (int i = 0; i < 8; ++i) result.bit[i] = wide[i];
    return result;
}

Byte operator*(const Byte& a, const Byte& b) {
    Bits wide[15] = {};
    for (int i = 0; i < 8; ++i) {
        for (int j = 0; j < 8; ++j) wide[i + j] ^= a.bit[i] & b.bit[j];
    }
    return reduced(wide);
}

Byte squared(const Byte& a) {
    Bits wide[15] = {};
    for (int i = 0; i < 8; ++i) wide[2 * i] = a.bit[i];
    return reduced(wide);
}

Byte s_box(const Byte& x) {
    const Byte x3 = squared(x) * x, x12 = squared(squared(x3)), x15 = x12 * x3;
    const Byte x240 = squared(squared(squared(squared(x15))));
    const Byte inverse = x240 * x12 * squared(x);  // x^254
    Byte result;
    for (int i = 0; i < 8; ++i) {
        Bits bit = inverse.bit[i];
        for (int turn = 4; turn < 8; ++turn) bit ^= inverse.bit[(i + turn) % 8];
        result.bit[i] = (0x63 >> i & 1) != 0 ? ~bit : bit;
    }
    return result;
}

TC_INLINE Byte operator^(const Byte& a, const Byte& b) {
    Byte result;
    for (int i = 0; i < 8; ++i) result.bit[i] = a.bit[i] ^ b.bit[i];
    return result;
}

TC_INLINE Byte doubled(const Byte& a) {
    const Bits top = a.bit[7];
    return {{top, a.bit[0] ^ top, a.bit[1], a.bit[2] ^ top, a.bit[3] ^ top, a.bit[4], a.bit[5], a.bit[6]}};
}

void add_key(State& state, const u8* key) {
    for (int p = 0; p < 16; ++p) {
        for (int i = 0; i < 8; ++i) {
            const u64 mask = mask_of(key[p] >> i & 1);
            state.byte[p].bit[i] ^= Bits{mask, mask};
        }
    }
}

void substitute_and_shift(State& state) {
    const State before = state;
    for (int p = 0; p < 16; ++p) state.byte[p] = s_box(before.byte[(p + 4 * (p % 4)) % 16]);
}

void mix_columns(State& state) {
    for (int column = 0; column < 16; column += 4) {
        Byte a[4];
        for (int i = 0; i < 4; ++i) a[i] = state.byte[column + i];
        const Byte all = a[0] ^ a[1] ^ a[2] ^ a[3];
        for (int i = 0; i < 4; ++i) state.byte[column + i] = a[i] ^ all ^ doubled(a[i] ^ a[(i + 1) % 4]);
    }
}

// Transpose an 8 x 8 matrix of bits, byte i being row i (Warren, Hacker's Delight, §7-3).
TC_INLINE u64 transposed(u64 x) {
    u64 t = (x ^ x >> 7) & 0x00aa00aa00aa00aa;
    x ^= t ^ t << 7;
    t = (x ^ x >> 14) & 0x0000cccc0000cccc;
    x ^= t ^ t << 14;
    t = (x ^ x >> 28) & 0x00000000f0f0f0f0;
    return x ^ t ^ t << 28;
}

// Byte p of 128 blocks to and from eight vectors, eight blocks at a time.
void gather(State& state, const u8* in, std::size_t blocks) {
    for (int p = 0; p < 16; ++p) {
        u8 bits[8][kLanes / 8];
        for (std::size_t eight = 0; eight < kLanes / 8; ++eight) {
            u64 word = 0;
            for (std::size_t i = 0; i < 8; ++i) {
                const std::size_t block = 8 * eight + i;
                if (block < blocks) word |= u64{in[kBlockSize * block + p]} << (8 * i);
            }
            word = transposed(word);
            for (int i = 0; i < 8; ++i) bits[i][eight] = static_cast<u8>(word >> (8 * i));
        }
        for (int i = 0; i < 8; ++i) state.byte[p].bit[i] = load_block(bits[i]);
    }
}

void scatter(const State& state, u8* out, std::size_t blocks) {
    for (int p = 0; p < 16; ++p) {
        u8 bits[8][kLanes / 8];
        for (int i = 0; i < 8; ++i) store_block(bits[i], state.byte[p].bit[i]);
        for (std::size_t eight = 0; eight < kLanes / 8; ++eight) {
            u64 word = 0;
            for (int i = 0; i < 8; ++i) word |= u64{bits[i][eight]} << (8 * i);
            word = transposed(word);
            for (std::size_t i = 0; i < 8; ++i) {
                const std::size_t block = 8 * eight + i;
                if (block < blocks) out[kBlockSize * block + p] = static_cast<u8>(word >> (8 * i));
            }
        }
    }
}

void encrypt(const Aes128Key& key, const u8* in, u8* out, std::size_t blocks) {
    State state;
    for (std::size_t done = 0; done < blocks; done += kLanes) {
        const std::size_t now = blocks - done < kLanes ? blocks - done : kLanes;
        gather(state, in + kBlockSize * done, now);
        add_key(state, key.round[0]);
        for (int round = 1; round < 11; ++round) {
            substitute_and_shift(state);
            if (round < 10) mix_columns(state);
            add_key(state, key.round[round]);
        }
        scatter(state, out + kBlockSize * done, now);
    }
    wipe(&state, sizeof state);
}

// The S-box of four bytes, as if each were a block of its own.
void s_box_word(u8* word) {
    Byte bits;
    for (int i = 0; i < 8; ++i) {
        u64 lanes = 0;
        for (int lane = 0; lane < 4; ++lane) lanes |= u64{static_cast<u8>(word[lane] >> i & 1)} << lane;
        bits.bit[i] = Bits{lanes, 0};
    }
    bits = s_box(bits);
    for (int lane = 0; lane < 4; ++lane) {
        word[lane] = 0;
        for (int i = 0; i < 8; ++i) word[lane] |= static_cast<u8>((bits.bit[i][0] >> lane & 1) << i);
    }
}

void schedule(Aes128Key& key, const u8* bytes) {
    std::memcpy(key.round, bytes, 16);
    u8* words = key.round[0];
    u8 constant = 1;
    for (int i = 4; i < 44; ++i) {
        u8 word[4];
        std::memcpy(word, words + 4 * (i - 1), 4);
        if (i % 4 == 0) {
            const u8 first = word[0];
            for (int k = 0; k < 3; ++k) word[k] = word[k + 1];
            word[3] = first;
            s_box_word(word);
            word[0] ^= constant;
            constant = static_cast<u8>(constant << 1 ^ (constant & 0x80 ? 0x1b : 0));
        }
        for (int k = 0; k < 4; ++k) words[4 * i + k] = words[4 * (i - 4) + k] ^ word[k];
    }
}

void davies_meyer(const u8* keys, const u8* rows, u8* out, std::size_t blocks) {
    Aes128Key key;
    u8 cipher[kBlockSize];
    for (std::size_t i = 0; i < blocks; ++i, rows += kBlockSize, out += kBlockSize) {
        schedule(key, keys + kBlockSize * i);
        encrypt(key, rows, cipher, 1);
        store_block(out, load_block(cipher) ^ load_block(rows));
    }
    wipe(&key, sizeof key);
}

}  // namespace

const Aes128Functions kAes128Portable = {schedule, encrypt, davies_meyer};

void aes128_davies_meyer(const Dispatch& with, const u8* keys, const u8* rows, std::size_t count, u8* out) {
    with.aes.davies_meyer(keys, rows, out, count);
}

void aes128_ctr(const Dispatch& with, const u8* keys, std::size_t count, std::size_t blocks, u8* out) {
    Aes128Key key;
    for (std::size_t i = 0; i < count; ++i) {
        with.aes.schedule(key, keys + kBlockSize * i);
        aes128_counters(with.aes, key, 0, blocks, out + kBlockSize * blocks * i);
    }
    wipe(&key, sizeof key);
}

void aes128_hash(const Dispatch& with, const u8* key_bytes, const u8* rows, std::size_t width, std::size_t count,
                 u8* out) {
    constexpr std::size_t kBatch = 128;
    Aes128Key key;
    with.aes.schedule(key, key_bytes);
    alignas(32) u8 mixed[kBatch * kBlockSize];
    for (std::size_t done = 0; done < count; done += kBatch) {
        const std::size_t now = count - done < kBatch ? count - done : kBatch;
        u8* state = out + kBlockSize * done;
        for (std::size_t at = 0; at < width; at += kBlockSize) {
            for (std::size_t i = 0; i < now; ++i) {
                const Block before = at == 0 ? Block{0, 0} : load_block(state + kBlockSize * i);
                store_block(mixed + kBlockSize * i, before ^ load_block(rows + width * (done + i) + at));
            }
            aes128_feed_forward(with.aes, key, mixed, state, now);
        }
    }
    wipe(mixed, sizeof mixed);
}

}  // namespace tc
