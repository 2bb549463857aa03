// Looking rows up in a table, through an index of their salted hashes. Not constant time.
#include <vector>

#include "kernels.h"

namespace tc {
namespace {

constexpr u32 kEmpty = 0xffffffff;
constexpr std::size_t kAhead = 16;  // rows whose slots are on their way while another one is looked at

// Eight bytes at a time, each folded into a 64-bit state by a 128-bit product with a secret odd factor.
class Hash {
   public:
    Hash(const u8* salt, std::size_t width) : start_(load64le(salt)), factor_(load64le(salt + 8) | 1), width_(width) {}

    u64 operator()(const u8* row) const {
        u64 state = start_;
        std::size_t at = 0;
        for (; at + 8 <= width_; at += 8) state = folded(state ^ load64le(row + at));
        if (at < width_) {
            u64 rest = 0;
            std::memcpy(&rest, row + at, width_ - at);
            state = folded(state ^ rest);
        }
        return folded(state);
    }

   private:
    u64 folded(u64 value) const {
        const u128 product = u128{value} * factor_;
        return static_cast<u64>(product) ^ static_cast<u64>(product >> 64);
    }

    u64 start_, factor_;
    std::size_t width_;
};

// Open addressing with room for twice the rows; a slot keeps the row's position and 32 bits of its hash.
class Index {
   public:
    explicit Index(std::size_t rows) {
        std::size_t size = 64;
        while (size < 2 * rows) size *= 2;
        slots_.assign(size, {kEmpty, 0});
        mask_ = size - 1;
    }

    void prefetch(u64 hash) const { __builtin_prefetch(&slots_[hash & mask_]); }

    // The position of an equal row, or the one just kept for it; kEmpty if there is none and none is to be kept.
    u32 find(u64 hash, const u8* row, const u8* table, std::size_t width, u32 keep) {
        const u32 mark = static_cast<u32>(hash >> 32);
        for (std::size_t at = hash & mask_;; at = (at + 1) & mask_) {
            Slot& slot = slots_[at];
            if (slot.position == kEmpty) {
                if (keep != kEmpty) slot = {keep, mark};
                return keep;
            }
            if (slot.mark == mark && std::memcmp(table + width * slot.position, row, width) == 0) return slot.position;
        }
    }

   private:
    struct Slot {
        u32 position, mark;
    };
    std::vector<Slot> slots_;
    std::size_t mask_;
};

// each(row number, hash) for all rows, their slots fetched ahead.
template <class Each>
void for_rows(const Hash& hash, const Index& index, const u8* rows, std::size_t count, std::size_t width, Each each) {
    u64 waiting[kAhead];
    for (std::size_t i = 0; i < count + kAhead; ++i) {
        if (i >= kAhead) each(i - kAhead, waiting[i % kAhead]);
        if (i < count) {
            waiting[i % kAhead] = hash(rows + width * i);
            index.prefetch(waiting[i % kAhead]);
        }
    }
}

}  // namespace

void match_rows(const u8* values, std::size_t count, const u8* table, std::size_t rows, std::size_t width,
                const u8* salt, u8* out) {
    const Hash hash(salt, width);
    Index index(rows);
    for_rows(hash, index, table, rows, width, [&](std::size_t i, u64 h) {
        index.find(h, table + width * i, table, width, static_cast<u32>(i));
    });
    for_rows(hash, index, values, count, width, [&](std::size_t i, u64 h) {
        const u32 found = index.find(h, values + width * i, table, width, kEmpty);
        store64le(out + 8 * i, found == kEmpty ? ~u64{0} : found);
    });
}

}  // namespace tc
