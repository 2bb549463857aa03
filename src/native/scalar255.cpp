// Batches of scalars modulo the group order. Constant time.
#include "kernels.h"
#include "scalar.h"

namespace tc {
namespace {

constexpr std::size_t kBatch = 64;

// 1/a mod l = a^(l - 2); a and the result in Montgomery form. The exponent is public.
Scalar inverted(const Scalar& a) {
    Scalar power = kR;
    for (int bit = 252; bit >= 0; --bit) {
        power = montgomery(power, power);
        const u64 word = bit < 64 ? kOrder.v[0] - 2 : kOrder.v[bit / 64];
        if (word >> (bit % 64) & 1) power = montgomery(power, a);
    }
    return power;
}

}  // namespace

void scalar255_reduce(const u8* wide, std::size_t count, u8* out) {
    for (std::size_t i = 0; i < count; ++i) store_scalar(out + 32 * i, reduced_wide(wide + 64 * i));
}

void scalar255_mul(const u8* a, const u8* b, std::size_t count, u8* out) {
    for (std::size_t i = 0; i < count; ++i) {
        store_scalar(out + 32 * i, load_scalar(a + 32 * i) * reduced(load_scalar(b + 32 * i)));
    }
}

void scalar255_sub(const u8* a, const u8* b, std::size_t count, u8* out) {
    for (std::size_t i = 0; i < count; ++i) {
        store_scalar(out + 32 * i, subtracted(reduced(load_scalar(a + 32 * i)), reduced(load_scalar(b + 32 * i))));
    }
}

// Montgomery's trick: one inversion for a whole batch, three products for each of its members.
i64 scalar255_invert(const u8* scalars, std::size_t count, u8* out) {
    for (std::size_t start = 0; start < count; start += kBatch) {
        const std::size_t size = count - start < kBatch ? count - start : kBatch;
        Scalar value[kBatch], before[kBatch];  // Montgomery form; before[i] = the product of value[0..i-1]
        Scalar product = kR;
        for (std::size_t i = 0; i < size; ++i) {
            value[i] = montgomery(load_scalar(scalars + 32 * (start + i)), kR2);
            if (zero_mask(value[i])) return static_cast<i64>(start + i);
            before[i] = product;
            product = montgomery(product, value[i]);
        }
        Scalar inverse = inverted(product);
        for (std::size_t i = size; i-- > 0;) {
            const Scalar own = montgomery(inverse, before[i]);
            store_scalar(out + 32 * (start + i), montgomery(own, {{1, 0, 0, 0}}));
            inverse = montgomery(inverse, value[i]);
        }
        wipe(value, sizeof value);
        wipe(before, sizeof before);
    }
    return kFine;
}

}  // namespace tc
