// Trees of pseudorandom values (Goldreich, Goldwasser, Micali): expanded from their roots, or from what the receiver of
// a punctured one knows. The same bytes as kernels/reference/pprf.py.
#include <vector>

#include "kernels.h"

namespace tc {
namespace {

constexpr std::size_t kBatch = 64;

TC_INLINE std::size_t level_width(std::size_t leaves, unsigned depth, unsigned level) {
    return (leaves + (std::size_t{1} << (depth - level)) - 1) >> (depth - level);
}

class Grower {
   public:
    Grower(const Dispatch& with, const u8* keys, std::size_t leaves)
        : aes_(with.aes), leaves_(leaves), depth_(tree_depth(leaves)), spare_(kBlockSize * leaves) {
        with.aes.schedule(side_[0], keys);
        with.aes.schedule(side_[1], keys + kBlockSize);
    }
    ~Grower() { wipe(spare_.data(), spare_.size()); }
    Grower(const Grower&) = delete;
    Grower& operator=(const Grower&) = delete;

    unsigned depth() const { return depth_; }
    std::size_t width(unsigned level) const { return level_width(leaves_, depth_, level); }

    // Where a level lies, so that the last one comes to lie in `out`.
    u8* level(unsigned number, u8* out) { return (depth_ - number) % 2 == 0 ? out : spare_.data(); }

    // The children of a level, and the sums of left and right ones.
    void grow(const u8* parents, u8* children, unsigned level, Block (&sums)[2]) const {
        alignas(32) u8 half[2][kBatch * kBlockSize];
        const std::size_t count = width(level);
        sums[0] = sums[1] = Block{0, 0};
        for (std::size_t done = 0; 2 * done < count; done += kBatch) {
            const std::size_t left = (count - 2 * done + 1) / 2;
            const std::size_t now = left < kBatch ? left : kBatch;
            for (int side = 0; side < 2; ++side) {
                aes128_feed_forward(aes_, side_[side], parents + kBlockSize * done, half[side], now);
            }
            u8* to = children + kBlockSize * 2 * done;
            const std::size_t pairs = 2 * (done + now) <= count ? now : now - 1;
            for (std::size_t i = 0; i < pairs; ++i) {
                const Block a = load_block(half[0] + kBlockSize * i), b = load_block(half[1] + kBlockSize * i);
                store_block(to + kBlockSize * 2 * i, a);
                store_block(to + kBlockSize * (2 * i + 1), b);
                sums[0] ^= a;
                sums[1] ^= b;
            }
            if (pairs < now) {  // the last parent has one child
                const Block a = load_block(half[0] + kBlockSize * pairs);
                store_block(to + kBlockSize * 2 * pairs, a);
                sums[0] ^= a;
            }
        }
    }

   private:
    const Aes128Functions& aes_;
    std::size_t leaves_;
    unsigned depth_;
    Aes128Key side_[2];
    std::vector<u8> spare_;
};

}  // namespace

void pprf_expand(const Dispatch& with, const u8* roots, std::size_t trees, std::size_t leaves, const u8* keys,
                 u8* out, u8* sums) {
    if (trees == 0) return;  // a level's memory is that of one tree
    Grower grower(with, keys, leaves);
    for (std::size_t tree = 0; tree < trees; ++tree, out += kBlockSize * leaves) {
        std::memcpy(grower.level(0, out), roots + kBlockSize * tree, kBlockSize);
        for (unsigned level = 1; level <= grower.depth(); ++level, sums += 2 * kBlockSize) {
            Block sides[2];
            grower.grow(grower.level(level - 1, out), grower.level(level, out), level, sides);
            store_block(sums, sides[0]);
            store_block(sums + kBlockSize, sides[1]);
        }
    }
}

void pprf_puncture(const Dispatch& with, const u8* sums, const u8* points, std::size_t trees, std::size_t leaves,
                   const u8* keys, u8* out, u8* totals) {
    if (trees == 0) return;
    Grower grower(with, keys, leaves);
    const Block zero = {0, 0};
    for (std::size_t tree = 0; tree < trees; ++tree, out += kBlockSize * leaves) {
        const u64 point = load64le(points + 8 * tree) % leaves;  // stays inside whatever it is
        Block total = zero;
        store_block(grower.level(0, out), zero);
        for (unsigned level = 1; level <= grower.depth(); ++level, sums += kBlockSize) {
            u8* nodes = grower.level(level, out);
            Block sides[2];
            grower.grow(grower.level(level - 1, out), nodes, level, sides);
            const std::size_t path = point >> (grower.depth() - level), sibling = path ^ 1;
            sides[path & 1] ^= load_block(nodes + kBlockSize * path);
            store_block(nodes + kBlockSize * path, zero);
            if (sibling < grower.width(level)) {
                u8* at = nodes + kBlockSize * sibling;
                store_block(at, sides[sibling & 1] ^ load_block(at) ^ load_block(sums));
                sides[sibling & 1] = load_block(sums);
            }
            total = sides[0] ^ sides[1];
        }
        store_block(totals + kBlockSize * tree, total);
    }
}

}  // namespace tc
