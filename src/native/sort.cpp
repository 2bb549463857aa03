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

// A row as one word: the top of its head above its number. Words sort like rows, up to rows that agree in that top.
class Words {
   public:
    Words(const u8* rows, std::size_t count, std::size_t width)
        : rows_(rows), width_(width), low_((u64{1} << bits_for(count + 1, 63)) - 1) {}

    u64 word(std::size_t row) const { return (head_of(rows_ + width_ * row, width_) & ~low_) | row; }
    std::size_t row(u64 word) const { return word & low_; }

    bool operator()(u64 a, u64 b) const {  // before: by the bytes, then by the number
        if (((a ^ b) & ~low_) != 0) return a < b;
        const int order = std::memcmp(rows_ + width_ * row(a), rows_ + width_ * row(b), width_);
        return order != 0 ? order < 0 : a < b;
    }

   private:
    const u8* rows_;
    std::size_t width_;
    u64 low_;
};

// Spread words by the `bits` of them below the topmost `skipped`; starts[b] is where bucket b ends up beginning.
void spread(const u64* from, std::size_t count, unsigned skipped, unsigned bits, u64* to, u32* starts) {
    const auto bucket = [&](u64 word) { return bits == 0 ? 0 : word << skipped >> (64 - bits); };
    const std::size_t buckets = std::size_t{1} << bits;
    std::fill(starts, starts + buckets + 1, 0);
    for (std::size_t i = 0; i < count; ++i) ++starts[bucket(from[i])];
    u32 sum = 0;
    for (std::size_t b = 0; b <= buckets; ++b) {
        sum += starts[b];
        starts[b] = sum;
    }
    for (std::size_t i = count; i-- > 0;) to[--starts[bucket(from[i])]] = from[i];
}

}  // namespace

void sort_rows(const u8* rows, std::size_t count, std::size_t width, u8* order, u8* sorted) {
    constexpr unsigned kTop = 11, kInner = 11;  // so many streams of writing go well at a time
    const Words words(rows, count, width);
    const std::unique_ptr<u64[]> here(new u64[count]), there(new u64[count]);
    for (std::size_t i = 0; i < count; ++i) here[i] = words.word(i);
    const unsigned top = bits_for(count / 256, kTop);
    std::vector<u32> starts((std::size_t{1} << top) + 1), inside((std::size_t{1} << kInner) + 1);
    spread(here.get(), count, 0, top, there.get(), starts.data());
    for (std::size_t bucket = 0; bucket + 1 < starts.size(); ++bucket) {
        const std::size_t start = starts[bucket], size = starts[bucket + 1] - start;
        const unsigned bits = bits_for(size, kInner);
        u64* const part = here.get() + start;
        spread(there.get() + start, size, top, bits, part, inside.data());
        for (std::size_t i = 0; i < std::size_t{1} << bits; ++i) {
            if (inside[i + 1] - inside[i] > 1) std::sort(part + inside[i], part + inside[i + 1], words);
        }
    }
    for (std::size_t i = 0; i < count; ++i) {
        if (i + kAhead < count) __builtin_prefetch(rows + width * words.row(here[i + kAhead]));
        const std::size_t row = words.row(here[i]);
        store64le(order + 8 * i, row);
        std::memcpy(sorted + width * i, rows + width * row, width);
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
