// The key-value store of psi.vole: encoding by peeling and elimination, decoding. What is solved and which cells stay
// zero is said in kernels/reference/okvs.py, which gives the same bytes. Not constant time: cells are chosen by the keys.
#include <memory>
#include <vector>

#include "kernels.h"

namespace tc {
namespace {

constexpr std::size_t kBatch = 64;
using u16 = std::uint16_t;

TC_INLINE u32 scaled(u32 word, u32 range) { return static_cast<u32>(u64{word} * range >> 32); }

// Where a key belongs: its bin and three different cells.
struct Place {
    u32 bin;
    u16 cell[3];
};

TC_INLINE Place place_of(const u8* words, const OkvsShape& shape) {
    u32 word[4];
    std::memcpy(word, words, 16);
    const u32 a = scaled(word[0], shape.sparse);
    u32 b = scaled(word[1], shape.sparse - 1), c = scaled(word[2], shape.sparse - 2);
    b += b >= a;
    const u32 low = a < b ? a : b, high = a < b ? b : a;
    c += c >= low;
    c += c >= high;
    return {scaled(word[3], shape.bins), {static_cast<u16>(a), static_cast<u16>(b), static_cast<u16>(c)}};
}

struct Key {  // of one bin; not initialised when made
    u32 row;
    u16 cell[3];
};

// What the rows of keys are: their hashes, and the values to encode.
struct Rows {
    const u8 *hashes, *values;

    Block hash(const Key& key) const { return load_block(hashes + kBlockSize * key.row); }
    Block value(const Key& key) const { return load_block(values + kBlockSize * key.row); }
    void prefetch(const Key& key) const { __builtin_prefetch(values + kBlockSize * key.row); }
};

// Elements of GF(2^128) one at a time, where speed does not matter.
struct Field {
    const Gf128Functions& functions;

    Block product(Block a, Block b) const {
        u8 x[16], y[16];
        store_block(x, a);
        store_block(y, b);
        functions.mul(x, y, 16, 1, x);
        return load_block(x);
    }

    Block inverse(Block a) const {  // a^(2^128 - 2)
        Block power = product(a, a), result = power;
        for (int i = 1; i < 127; ++i) {
            power = product(power, power);
            result = product(result, power);
        }
        return result;
    }
};

TC_INLINE bool is_zero(Block a) { return (a[0] | a[1]) == 0; }

// A row of the elimination: its sparse cells as bits, its dense weights and its value.
struct Line {
    std::vector<u64> bits;
    std::vector<Block> dense;  // weights, and the value last
    std::size_t pivot = 0;

    void add(const Line& other) {
        for (std::size_t i = 0; i < bits.size(); ++i) bits[i] ^= other.bits[i];
        for (std::size_t i = 0; i < dense.size(); ++i) dense[i] ^= other.dense[i];
    }
    bool has(std::size_t cell) const { return (bits[cell / 64] >> (cell % 64) & 1) != 0; }
    // The highest cell; false if there is none.
    bool find_pivot() {
        for (std::size_t word = bits.size(); word-- > 0;) {
            if (bits[word] != 0) {
                pivot = 64 * word + 63 - static_cast<std::size_t>(__builtin_clzll(bits[word]));
                return true;
            }
        }
        return false;
    }
};

class Solver {
   public:
    Solver(const Dispatch& with, const OkvsShape& shape, const Rows& rows)
        : field_{with.gf128}, shape_(shape), rows_(rows), around_(shape.sparse) {
        order_.reserve(shape.capacity);
        lonely_.reserve(shape.sparse);
    }

    // Solve the equations of one bin into its cells. False if there is no solution.
    bool solve(const Key* keys, std::size_t count, u8* cells) {
        std::memset(cells, 0, kBlockSize * shape_.size());
        peel(keys, count);
        dense_.clear();
        if (order_.size() < count && !solve_core(keys, count, cells)) return false;
        for (std::size_t i = order_.size(); i-- > 0;) {
            if (i >= kAhead) rows_.prefetch(keys[order_[i - kAhead].key]);
            const Key& key = keys[order_[i].key];
            const Block sum = right_side(key) ^ load_block(cells + kBlockSize * key.cell[0]) ^
                              load_block(cells + kBlockSize * key.cell[1]) ^
                              load_block(cells + kBlockSize * key.cell[2]);
            store_block(cells + kBlockSize * order_[i].cell, sum);
        }
        return true;
    }

   private:
    struct Around {  // a cell: how many keys use it, and the sum of their numbers
        u16 keys, sum;
    };
    struct Step {
        u16 key, cell;
    };

    void peel(const Key* keys, std::size_t count) {
        std::memset(around_.data(), 0, sizeof(Around) * around_.size());
        for (std::size_t i = 0; i < count; ++i) {
            for (const u16 cell : keys[i].cell) {
                ++around_[cell].keys;
                around_[cell].sum ^= static_cast<u16>(i);
            }
        }
        order_.clear();
        lonely_.clear();
        for (std::size_t cell = 0; cell < around_.size(); ++cell) {
            if (around_[cell].keys == 1) lonely_.push_back(static_cast<u16>(cell));
        }
        while (!lonely_.empty()) {
            const u16 cell = lonely_.back();
            lonely_.pop_back();
            if (around_[cell].keys != 1) continue;
            const u16 key = around_[cell].sum;
            order_.push_back({key, cell});
            for (const u16 other : keys[key].cell) {
                around_[other].sum ^= key;
                if (--around_[other].keys == 1) lonely_.push_back(other);
            }
        }
    }

    // A key's value, less what the dense cells add to it: most bins have none that matter.
    TC_INLINE Block right_side(const Key& key) const {
        Block total = {0, 0};
        for (std::size_t k = dense_.size(); k-- > 0;) total = field_.product(total ^ dense_[k], rows_.hash(key));
        return rows_.value(key) ^ total;
    }

    // What no peeling resolves: rare and small where the shape fits the number of keys.
    bool solve_core(const Key* keys, std::size_t count, u8* cells) {
        std::vector<bool> peeled(count);
        for (const Step& step : order_) peeled[step.key] = true;
        std::vector<Line> pivots, rest;
        for (std::size_t i = 0; i < count; ++i) {
            if (peeled[i]) continue;
            Line line = line_of(keys[i]);
            for (const Line& earlier : pivots) {
                if (line.has(earlier.pivot)) line.add(earlier);
            }
            (line.find_pivot() ? pivots : rest).push_back(std::move(line));
        }
        std::vector<Block> dense(shape_.dense, Block{0, 0});
        if (!gauss(rest, dense)) return false;
        for (std::size_t i = 0; i < dense.size(); ++i) store_block(cells + kBlockSize * (shape_.sparse + i), dense[i]);
        for (std::size_t i = pivots.size(); i-- > 0;) {
            const Line& line = pivots[i];
            Block total = line.dense.back();
            for (std::size_t k = 0; k < dense.size(); ++k) total ^= field_.product(line.dense[k], dense[k]);
            for (std::size_t cell = 0; cell < shape_.sparse; ++cell) {
                if (cell != line.pivot && line.has(cell)) total ^= load_block(cells + kBlockSize * cell);
            }
            store_block(cells + kBlockSize * line.pivot, total);
        }
        if (!rest.empty()) dense_ = std::move(dense);
        return true;
    }

    Line line_of(const Key& key) const {
        Line line;
        line.bits.assign((shape_.sparse + 63) / 64, 0);
        for (const u16 cell : key.cell) line.bits[cell / 64] |= u64{1} << (cell % 64);
        const Block hash = rows_.hash(key);
        Block power = hash;
        for (u32 k = 0; k < shape_.dense; ++k) {
            line.dense.push_back(power);
            power = field_.product(power, hash);
        }
        line.dense.push_back(rows_.value(key));
        return line;
    }

    // Gauss-Jordan over GF(2^128); what stays free is zero. False if the lines contradict each other.
    bool gauss(std::vector<Line> lines, std::vector<Block>& solution) const {
        std::vector<std::size_t> column_of;
        std::size_t solved = 0;
        for (std::size_t column = 0; column < solution.size() && solved < lines.size(); ++column) {
            std::size_t found = solved;
            while (found < lines.size() && is_zero(lines[found].dense[column])) ++found;
            if (found == lines.size()) continue;
            std::swap(lines[solved], lines[found]);
            std::vector<Block>& row = lines[solved].dense;
            const Block scale = field_.inverse(row[column]);
            for (Block& entry : row) entry = field_.product(entry, scale);
            for (std::size_t i = 0; i < lines.size(); ++i) {
                if (i == solved) continue;
                const Block factor = lines[i].dense[column];
                for (std::size_t k = 0; k < row.size(); ++k) lines[i].dense[k] ^= field_.product(factor, row[k]);
            }
            column_of.push_back(column);
            ++solved;
        }
        for (std::size_t i = solved; i < lines.size(); ++i) {
            if (!is_zero(lines[i].dense.back())) return false;
        }
        for (std::size_t i = 0; i < solved; ++i) solution[column_of[i]] = lines[i].dense.back();
        return true;
    }

    static constexpr std::size_t kAhead = 12;  // keys whose values are on their way

    Field field_;
    const OkvsShape& shape_;
    const Rows rows_;
    std::vector<Block> dense_;
    std::vector<Around> around_;
    std::vector<Step> order_;
    std::vector<u16> lonely_;
};

}  // namespace

i64 okvs_encode(const Dispatch& with, const u8* hashes, const u8* values, std::size_t keys, const u8* key_bytes,
                const OkvsShape& shape, std::size_t first, std::size_t count, u8* out) {
    Aes128Key key;
    with.aes.schedule(key, key_bytes);
    const std::size_t room = shape.capacity < keys ? shape.capacity : keys;
    const std::unique_ptr<Key[]> sorted(new Key[room * count]);
    std::vector<std::size_t> load(count, 0);
    std::size_t overflown = count;
    alignas(32) u8 words[kBatch * kBlockSize];
    for (std::size_t done = 0; done < keys; done += kBatch) {
        const std::size_t now = keys - done < kBatch ? keys - done : kBatch;
        aes128_feed_forward(with.aes, key, hashes + kBlockSize * done, words, now);
        for (std::size_t i = 0; i < now; ++i) {
            const Place place = place_of(words + kBlockSize * i, shape);
            const std::size_t bin = place.bin - first;  // wraps around where it lies before the first
            if (bin >= count) continue;
            if (load[bin] == room) {
                overflown = bin < overflown ? bin : overflown;
                continue;
            }
            sorted[room * bin + load[bin]++] = {static_cast<u32>(done + i),
                                                {place.cell[0], place.cell[1], place.cell[2]}};
        }
    }
    Solver solver(with, shape, {hashes, values});
    for (std::size_t bin = 0; bin < count; ++bin) {
        if (bin == overflown ||
            !solver.solve(sorted.get() + room * bin, load[bin], out + kBlockSize * shape.size() * bin)) {
            return static_cast<i64>(first + bin);
        }
    }
    wipe(sorted.get(), sizeof(Key) * room * count);
    return kFine;
}

void okvs_decode(const Dispatch& with, const u8* hashes, std::size_t keys, const u8* table, const u8* key_bytes,
                 const OkvsShape& shape, u8* out) {
    Aes128Key key;
    with.aes.schedule(key, key_bytes);
    alignas(32) u8 words[kBatch * kBlockSize], dense[kBatch * kBlockSize];
    const u8* cell[kBatch][3];
    const u8* weighed[kBatch];
    for (std::size_t done = 0; done < keys; done += kBatch) {
        const std::size_t now = keys - done < kBatch ? keys - done : kBatch;
        const u8* some = hashes + kBlockSize * done;
        u8* to = out + kBlockSize * done;
        aes128_feed_forward(with.aes, key, some, words, now);
        for (std::size_t i = 0; i < now; ++i) {
            const Place place = place_of(words + kBlockSize * i, shape);
            const u8* base = table + kBlockSize * shape.size() * place.bin;
            weighed[i] = base + kBlockSize * shape.sparse;
            for (int k = 0; k < 3; ++k) {
                cell[i][k] = base + kBlockSize * place.cell[k];
                __builtin_prefetch(cell[i][k]);
            }
        }
        std::memset(dense, 0, kBlockSize * now);
        for (std::size_t k = shape.dense; k-- > 0;) {  // Horner's rule
            for (std::size_t i = 0; i < now; ++i) {
                u8* at = dense + kBlockSize * i;
                store_block(at, load_block(at) ^ load_block(weighed[i] + kBlockSize * k));
            }
            with.gf128.mul(dense, some, kBlockSize, now, dense);
        }
        for (std::size_t i = 0; i < now; ++i) {
            store_block(to + kBlockSize * i, load_block(dense + kBlockSize * i) ^ load_block(cell[i][0]) ^
                                                 load_block(cell[i][1]) ^ load_block(cell[i][2]));
        }
    }
}

}  // namespace tc
