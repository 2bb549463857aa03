// Rows in the order of their bytes, and looking rows up in a table that is in that order. Not constant time.
#include <algorithm>
#include <memory>
#include <vector>

#include "kernels.h"

namespace tc {
namespace {

constexpr std::size_t kAhead = 16;  // rows whose memory is on its way while another one is looked at

// The first eight bytes, so that numbers compare as rows do; shorter rows are filled up with zeros.
TC_INLINE u64 head_of(const u8* row, std::size_t width) {
    if (width >= 8) return load64be(row);
    u8 padded[8] = {};
    std::memcpy(padded, row, width);
    return load64be(padded);
}

// A row to be compared: by its head, and only then by what follows.
struct Row {
    u64 head;
    const u8* rest;
    std::size_t size;

    TC_INLINE Row(const u8* row, std::size_t width)
        : head(head_of(row, width)), rest(row + 8), size(width > 8 ? width - 8 : 0) {}
    TC_INLINE bool operator<(const Row& other) const {
        return head != other.head ? head < other.head : size != 0 && std::memcmp(rest, other.rest, size) < 0;
    }
    TC_INLINE bool operator==(const Row& other) const {
        return head == other.head && (size == 0 || std::memcmp(rest, other.rest, size) == 0);
    }
};

// Bits of a number of buckets that get a few rows each, no more than `most`.
unsigned bits_for(std::size_t rows, unsigned most) {
    unsigned bits = 0;
    while (bits < most && (std::size_t{1} << bits) < rows) ++bits;
    return bits;
}

struct Item {
    u64 head;
    u32 row;
};

// Before another row: by the bytes, then by the position.
struct Before {
    const u8* rows;
    std::size_t width;

    bool operator()(const Item& a, const Item& b) const {
        if (a.head != b.head) return a.head < b.head;
        if (width > 8) {
            const int rest = std::memcmp(rows + width * a.row + 8, rows + width * b.row + 8, width - 8);
            if (rest != 0) return rest < 0;
        }
        return a.row < b.row;
    }
};

// Spread items by the `bits` of their heads below the topmost `skipped`; starts[b] is where bucket b ends up beginning.
void spread(const Item* from, std::size_t count, unsigned skipped, unsigned bits, Item* to, u32* starts) {
    const auto bucket = [&](const Item& item) { return bits == 0 ? 0 : item.head << skipped >> (64 - bits); };
    const std::size_t buckets = std::size_t{1} << bits;
    std::fill(starts, starts + buckets + 1, 0);
    for (std::size_t i = 0; i < count; ++i) ++starts[bucket(from[i]) + 1];
    for (std::size_t b = 0; b < buckets; ++b) starts[b + 1] += starts[b];
    std::vector<u32> next(starts, starts + buckets);
    for (std::size_t i = 0; i < count; ++i) to[next[bucket(from[i])]++] = from[i];
}

}  // namespace

void sort_rows(const u8* rows, std::size_t count, std::size_t width, u8* order, u8* sorted) {
    constexpr unsigned kTop = 11, kInner = 12;  // so many streams of writing go well at a time
    const std::unique_ptr<Item[]> items(new Item[count]), others(new Item[count]);
    for (std::size_t i = 0; i < count; ++i) items[i] = {head_of(rows + width * i, width), static_cast<u32>(i)};
    const unsigned top = bits_for(count / 256, kTop);
    std::vector<u32> starts((std::size_t{1} << top) + 1), inside((std::size_t{1} << kInner) + 1);
    spread(items.get(), count, 0, top, others.get(), starts.data());
    const Before before{rows, width};
    for (std::size_t bucket = 0; bucket + 1 < starts.size(); ++bucket) {
        const std::size_t start = starts[bucket], size = starts[bucket + 1] - start;
        const unsigned bits = bits_for(size, kInner);
        spread(others.get() + start, size, top, bits, items.get() + start, inside.data());
        for (std::size_t i = 0; i < std::size_t{1} << bits; ++i) {
            Item* const here = items.get() + start;
            if (inside[i + 1] - inside[i] > 1) std::sort(here + inside[i], here + inside[i + 1], before);
        }
    }
    for (std::size_t i = 0; i < count; ++i) {
        if (i + kAhead < count) __builtin_prefetch(rows + width * items[i + kAhead].row);
        store64le(order + 8 * i, items[i].row);
        std::memcpy(sorted + width * i, rows + width * items[i].row, width);
    }
}

i64 match_sorted(const u8* values, std::size_t count, const u8* table, std::size_t rows, std::size_t width, u8* out) {
    const unsigned bits = bits_for(rows, 24);
    const auto bucket = [&](u64 head) { return bits == 0 ? 0 : head >> (64 - bits); };
    std::vector<u32> starts((std::size_t{1} << bits) + 1, 0);
    for (std::size_t i = 0; i < rows; ++i) {
        const u8* row = table + width * i;
        if (i > 0 && Row(row, width) < Row(row - width, width)) return static_cast<i64>(i);
        ++starts[bucket(head_of(row, width)) + 1];
    }
    for (std::size_t b = 1; b < starts.size(); ++b) starts[b] += starts[b - 1];

    struct Range {
        u64 bucket;
        u32 low, high;
    } waiting[2 * kAhead];
    for (std::size_t i = 0; i < count + 2 * kAhead; ++i) {
        if (i >= 2 * kAhead) {  // look
            const std::size_t row = i - 2 * kAhead;
            u32 low = waiting[row % (2 * kAhead)].low, high = waiting[row % (2 * kAhead)].high;
            const u32 end = high;
            const Row wanted(values + width * row, width);
            while (high - low > 4) {
                const u32 middle = low + (high - low) / 2;
                (Row(table + width * middle, width) < wanted ? low : high) = middle;
            }
            while (low < high && Row(table + width * low, width) < wanted) ++low;
            const bool found = low < end && Row(table + width * low, width) == wanted;
            store64le(out + 8 * row, found ? low : ~u64{0});
        }
        if (i >= kAhead && i - kAhead < count) {  // its rows
            Range& range = waiting[(i - kAhead) % (2 * kAhead)];
            range.low = starts[range.bucket];
            range.high = starts[range.bucket + 1];
            __builtin_prefetch(table + width * range.low);
        }
        if (i < count) {  // where they begin
            Range& range = waiting[i % (2 * kAhead)];
            range.bucket = bucket(head_of(values + width * i, width));
            __builtin_prefetch(&starts[range.bucket]);
        }
    }
    return kFine;
}

}  // namespace tc
