// One SHA-256 digest a row of a table. Constant time in the bytes of the cells, not in their lengths.
#include "kernels.h"

namespace tc {
namespace {

constexpr std::size_t kBlock = 64;
constexpr std::size_t kCellHead = 5;   // tag and length
constexpr std::size_t kShort = 1024;   // a longer padded row is not gathered but absorbed as it comes

struct Cell {
    const u8* data;
    std::size_t size;
};

// The cell of a column, or nullptr with size 1 if its offsets do not lie inside the data. Offsets are read once each:
// nobody can change them between the check and the use.
Cell cell_of(const Column& column, std::size_t row) {
    if (column.fixed) return {column.data + column.width * row, column.width};
    i64 start, end;
    std::memcpy(&start, column.offsets + 8 * row, 8);
    std::memcpy(&end, column.offsets + 8 * row + 8, 8);
    if (start < 0 || end < start || static_cast<u64>(end) > column.size || end - start > i64{0xffffffff}) {
        return {nullptr, 1};
    }
    return {column.data + start, static_cast<std::size_t>(end - start)};
}

void write_head(u8* to, u8 tag, std::size_t size) {
    to[0] = tag;
    const u32 length = static_cast<u32>(size);
    std::memcpy(to + 1, &length, 4);
}

// The padded end of a message: 0x80, zeros, its length in bits. Returns the number of blocks.
std::size_t pad(u8* buffer, std::size_t size, u64 absorbed_before) {
    const std::size_t blocks = (size + 1 + 8 + kBlock - 1) / kBlock;
    buffer[size] = 0x80;
    std::memset(buffer + size + 1, 0, blocks * kBlock - 8 - size - 1);
    store64be(buffer + blocks * kBlock - 8, 8 * (absorbed_before + size));
    return blocks;
}

void store_state(u8* out, const Sha256State& state) {
    for (int i = 0; i < 8; ++i) store32be(out + 4 * i, state.h[i]);
}

// What every row starts with: the state after the prefix's whole blocks, and the rest of the prefix.
struct Start {
    Sha256State state;
    u64 absorbed;
    const u8* rest;
    std::size_t rest_size;
};

// A row gathered into one padded buffer.
struct ShortRow {
    u8 buffer[kShort];
    std::size_t blocks = 0;
    Sha256State state;
    u8* out;
};

class RowDigester {
   public:
    RowDigester(const Sha256Functions& sha, const Start& start, const std::vector<Column>& columns)
        : sha_(sha), start_(start), columns_(columns) {
        for (ShortRow& row : rows_) std::memcpy(row.buffer, start.rest, start.rest_size);
    }

    // False if an offset is malformed.
    bool digest(std::size_t row, u8* out) {
        ShortRow& gathered = rows_[waiting_];
        std::size_t at = start_.rest_size;
        for (const Column& column : columns_) {
            const Cell cell = cell_of(column, row);
            if (cell.data == nullptr && cell.size != 0) return false;
            if (cell.size > kShort || at + kCellHead + cell.size + 9 > kShort) return absorb(row, out);
            write_head(gathered.buffer + at, column.tag, cell.size);
            if (cell.size != 0) std::memcpy(gathered.buffer + at + kCellHead, cell.data, cell.size);
            at += kCellHead + cell.size;
        }
        gathered.blocks = pad(gathered.buffer, at, start_.absorbed);
        gathered.state = start_.state;
        gathered.out = out;
        if (++waiting_ == 2) flush();
        return true;
    }

    void flush() {
        ShortRow &a = rows_[0], &b = rows_[1];
        std::size_t both = 0;
        if (waiting_ == 2) {
            both = a.blocks < b.blocks ? a.blocks : b.blocks;
            sha_.compress_two(a.state, a.buffer, b.state, b.buffer, both);
        }
        for (std::size_t i = 0; i < waiting_; ++i) {
            sha_.compress(rows_[i].state, rows_[i].buffer + kBlock * both, rows_[i].blocks - both);
            store_state(rows_[i].out, rows_[i].state);
        }
        waiting_ = 0;
    }

   private:
    // A row of any length, block by block.
    bool absorb(std::size_t row, u8* out) {
        Sha256State state = start_.state;
        u8 block[2 * kBlock];
        std::size_t at = start_.rest_size;
        u64 absorbed = start_.absorbed;
        std::memcpy(block, start_.rest, at);
        const auto take = [&](const u8* data, std::size_t size) {
            while (size > 0) {
                if (at == 0 && size >= kBlock) {
                    const std::size_t blocks = size / kBlock;
                    sha_.compress(state, data, blocks);
                    data += kBlock * blocks, size -= kBlock * blocks, absorbed += kBlock * blocks;
                    continue;
                }
                const std::size_t taken = size < kBlock - at ? size : kBlock - at;
                std::memcpy(block + at, data, taken);
                data += taken, size -= taken, at += taken;
                if (at == kBlock) {
                    sha_.compress(state, block, 1);
                    at = 0, absorbed += kBlock;
                }
            }
        };
        for (const Column& column : columns_) {
            const Cell cell = cell_of(column, row);
            if (cell.data == nullptr && cell.size != 0) return false;
            u8 head[kCellHead];
            write_head(head, column.tag, cell.size);
            take(head, kCellHead);
            take(cell.data, cell.size);
        }
        sha_.compress(state, block, pad(block, at, absorbed));
        store_state(out, state);
        return true;
    }

    const Sha256Functions& sha_;
    const Start& start_;
    const std::vector<Column>& columns_;
    ShortRow rows_[2];
    std::size_t waiting_ = 0;
};

}  // namespace

i64 digest_columns(const Dispatch& with, const u8* prefix, std::size_t prefix_size, const std::vector<Column>& columns,
                   std::size_t count, u8* out) {
    const std::size_t whole = prefix_size / kBlock;
    Start start = {kSha256Initial, kBlock * whole, prefix + kBlock * whole, prefix_size % kBlock};
    with.sha256.compress(start.state, prefix, whole);
    RowDigester digester(with.sha256, start, columns);
    for (std::size_t row = 0; row < count; ++row) {
        if (!digester.digest(row, out + 32 * row)) return kMalformed;
    }
    digester.flush();
    return kFine;
}

}  // namespace tc
