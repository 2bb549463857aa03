// The expand-convolute code of silent VOLE, as kernels/reference/code.py defines it. Everything that decides what is read
// where is public; the elements themselves are only added: constant time.
#include "kernels.h"

namespace tc {
namespace {

constexpr std::size_t kWeight = 21;
constexpr int kTaps = 24, kGroup = 4, kGroups = kTaps / kGroup;
constexpr u64 kSecond = u64{1} << 61, kExpander = u64{1} << 62, kSegment = u64{1} << 40;

// The sums of all subsets of the last outputs, four by four: a row's taps become seven look-ups.
struct Window {
    Block subset[8][1 << kGroup];

    Block* group(std::size_t number) { return subset[number % 8]; }

    static TC_INLINE void append(Block* sums, int position, Block value) {
        for (int i = 0; i < 1 << position; ++i) sums[(1 << position) + i] = sums[i] ^ value;
    }
};

class Convolution {
   public:
    Convolution(const Dispatch& with, const u8* key, u8* vector, std::size_t size)
        : aes_(with.aes), vector_(vector), size_(size) {
        with.aes.schedule(key_, key);
    }

    // One round. `before` are the 25 outputs before the first.
    void round(u64 counter, const Block* before) {
        constexpr std::size_t kBatch = 256;  // rows whose taps are drawn at a time
        Window window;
        for (int i = 0; i < 8; ++i) window.subset[i][0] = Block{0, 0};
        for (int i = 0; i < kTaps; ++i) {  // groups 2..7 are those before group 0, which is number 8
            Window::append(window.group(static_cast<std::size_t>(2 + i / kGroup)), i % kGroup, before[1 + i]);
        }
        alignas(32) u32 taps[kBatch];
        for (std::size_t done = 0; done < size_; done += kBatch) {
            const std::size_t now = size_ - done < kBatch ? size_ - done : kBatch;
            aes128_counters(aes_, key_, counter + done / 4, kBatch / 4, reinterpret_cast<u8*>(taps));
            for (std::size_t i = 0; i < now; i += kGroup) {
                const int rows = now - i < kGroup ? static_cast<int>(now - i) : kGroup;
                four(window, done + i, rows, taps + i, before);
            }
        }
    }

   private:
    TC_INLINE void four(Window& window, std::size_t first, int rows, const u32* taps, const Block* before) {
        const std::size_t number = 8 + first / kGroup;
        Block* mine = window.group(number);
        for (int r = 0; r < rows; ++r) {
            const u32 mask = (taps[r] & ((1u << kTaps) - 1)) << r;  // bit p: output 4·(group - 6) + p
            const std::size_t row = first + static_cast<std::size_t>(r);
            Block sum = load_block(vector_ + kBlockSize * row);
            sum ^= row > kTaps ? load_block(vector_ + kBlockSize * (row - kTaps - 1)) : before[row];
            TC_UNROLL
            for (int k = 0; k < kGroups; ++k) {
                sum ^= window.group(number - kGroups + static_cast<std::size_t>(k))[mask >> (kGroup * k) & 15];
            }
            sum ^= mine[mask >> kTaps & 15];
            store_block(vector_ + kBlockSize * row, sum);
            Window::append(mine, r, sum);
        }
    }

    const Aes128Functions& aes_;
    Aes128Key key_;
    u8* vector_;
    std::size_t size_;
};

}  // namespace

void code_convolve(const Dispatch& with, const u8* key, u8* vector, std::size_t size) {
    Convolution convolution(with, key, vector, size);
    Block before[kTaps + 1] = {};
    convolution.round(0, before);
    for (std::size_t i = 0; i <= kTaps; ++i) before[i] = load_block(vector + kBlockSize * (size - kTaps - 1 + i));
    convolution.round(kSecond, before);
}

void code_expand(const Dispatch& with, const u8* vector, std::size_t size, const u8* systematic, const u8* key_bytes,
                 std::size_t first, std::size_t count, u8* out) {
    // A few segments at a time are read at random for all rows: few, so that they stay in a cache; more than one, since
    // the sums pass by once for all of them.
    constexpr std::size_t kBatch = 512, kTogether = 3;  // a divisor of kWeight
    Aes128Key key;
    with.aes.schedule(key, key_bytes);
    alignas(32) u32 words[kTogether][kBatch + 4];
    for (std::size_t segment = 0; segment < kWeight; segment += kTogether) {
        const u8* from[kTogether];
        u64 width[kTogether];
        for (std::size_t k = 0; k < kTogether; ++k) {
            const std::size_t start = (segment + k) * size / kWeight;
            from[k] = vector + kBlockSize * start;
            width[k] = (segment + k + 1) * size / kWeight - start;
        }
        const u8* before = segment == 0 ? systematic : out;
        for (std::size_t done = 0; done < count; done += kBatch) {
            const std::size_t now = count - done < kBatch ? count - done : kBatch, row = first + done;
            for (std::size_t k = 0; k < kTogether; ++k) {
                aes128_counters(with.aes, key, kExpander + (segment + k) * kSegment + row / 4, (row % 4 + now + 3) / 4,
                                reinterpret_cast<u8*>(words[k]));
            }
            for (std::size_t i = 0; i < now; ++i) {
                Block sum = load_block(before + kBlockSize * (done + i));
                TC_UNROLL
                for (std::size_t k = 0; k < kTogether; ++k) {
                    sum ^= load_block(from[k] + kBlockSize * (words[k][row % 4 + i] * width[k] >> 32));
                }
                store_block(out + kBlockSize * (done + i), sum);
            }
        }
    }
}

}  // namespace tc
