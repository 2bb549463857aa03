// The transform on four doubles at a time, with fused multiply-add (AVX2 and FMA), constant time.
//
// Residues are whole numbers in doubles. A product x·w of |x| <= 4q and |w| <= q/2, q < 2^50, is split exactly: h = fl(x·w),
// l = x·w - h by one fused operation. With c the integer next to x·(w/q), which is off by at most |x|·2^-53 beyond its
// rounding, h - c·q is a whole number below 2^53 and hence exact, and r = (h - c·q) + l = x·w - c·q has
// |r| <= q·(1/2 + |x|·2^-53). Four forward stages take |x| from q/2 to 3.3q, two backward stages to 2q: then all are brought back.
#include "ntt.h"

#if defined(__x86_64__)

#include <immintrin.h>

#include <vector>

TC_TARGET_PUSH("avx2,fma")

namespace tc {
namespace {

typedef __m256d Four;

struct Modulus {
    Four q, inverse;
};

TC_INLINE Four nearest(Four x) { return _mm256_round_pd(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }

TC_INLINE Four times(Four x, Four w, Four w_over_q, const Modulus& m) {
    const Four h = _mm256_mul_pd(x, w), l = _mm256_fmsub_pd(x, w, h);
    const Four c = nearest(_mm256_mul_pd(x, w_over_q));
    return _mm256_add_pd(_mm256_fnmadd_pd(c, m.q, h), l);
}

TC_INLINE Four centred(Four x, const Modulus& m) {
    return _mm256_fnmadd_pd(nearest(_mm256_mul_pd(x, m.inverse)), m.q, x);
}

// Words below 2^52 and doubles, through the bits of 2^52.
TC_INLINE Four from_words(const u8* from) {
    const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
    const __m256i words = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    return _mm256_sub_pd(_mm256_castsi256_pd(_mm256_or_si256(words, magic)), _mm256_castsi256_pd(magic));
}

// A centred residue as a word below the modulus.
TC_INLINE void to_words(Four x, const Modulus& m, u8* to) {
    const __m256i magic = _mm256_set1_epi64x(0x4330000000000000);
    x = _mm256_add_pd(x, _mm256_and_pd(_mm256_cmp_pd(x, _mm256_setzero_pd(), _CMP_LT_OQ), m.q));
    const __m256i words = _mm256_castpd_si256(_mm256_add_pd(x, _mm256_castsi256_pd(magic)));
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm256_xor_si256(words, magic));
}

struct Roots {
    std::vector<double> w, over_q;
};

double centred_word(u64 word, u64 modulus) {
    return word > modulus / 2 ? -static_cast<double>(modulus - word) : static_cast<double>(word);
}

Roots make_roots(const u8* roots, std::size_t size, u64 modulus) {
    Roots made{std::vector<double>(size), std::vector<double>(size)};
    for (std::size_t i = 0; i < size; ++i) {
        made.w[i] = centred_word(load64le(roots + 8 * i), modulus);
        made.over_q[i] = made.w[i] / static_cast<double>(modulus);
    }
    return made;
}

struct Pair {
    Four low, high;
};

TC_INLINE Pair forward_pair(Four u, Four x, Four w, Four over, const Modulus& m) {
    const Four v = times(x, w, over, m);
    return {_mm256_add_pd(u, v), _mm256_sub_pd(u, v)};
}

TC_INLINE Pair inverse_pair(Four u, Four v, Four w, Four over, const Modulus& m) {
    return {_mm256_add_pd(u, v), times(_mm256_sub_pd(u, v), w, over, m)};
}

// Two neighbouring vectors, for butterflies two and one apart: [a a b b][c c d d] and [a b a b][c d c d].
TC_INLINE Pair split_two(Four x, Four y) { return {_mm256_permute2f128_pd(x, y, 0x20), _mm256_permute2f128_pd(x, y, 0x31)}; }
TC_INLINE Pair split_one(Four x, Four y) { return {_mm256_unpacklo_pd(x, y), _mm256_unpackhi_pd(x, y)}; }

TC_INLINE Four twice(const double* w) { return _mm256_setr_pd(w[0], w[0], w[1], w[1]); }
TC_INLINE Four crossed(const double* w) { return _mm256_setr_pd(w[0], w[2], w[1], w[3]); }

template <class Butterfly>
TC_INLINE void stage(double* x, std::size_t groups, std::size_t half, const Roots& roots, const Modulus& m,
                     Butterfly butterfly) {
    const double *w = roots.w.data() + groups, *over = roots.over_q.data() + groups;
    if (half >= 4) {
        for (std::size_t group = 0; group < groups; ++group) {
            const Four by = _mm256_set1_pd(w[group]), by_over = _mm256_set1_pd(over[group]);
            double* low = x + 2 * group * half;
            for (std::size_t i = 0; i < half; i += 4) {
                const Pair made = butterfly(_mm256_loadu_pd(low + i), _mm256_loadu_pd(low + i + half), by, by_over, m);
                _mm256_storeu_pd(low + i, made.low);
                _mm256_storeu_pd(low + i + half, made.high);
            }
        }
        return;
    }
    for (std::size_t i = 0; i < groups * half * 2; i += 8) {
        const Four first = _mm256_loadu_pd(x + i), second = _mm256_loadu_pd(x + i + 4);
        Pair made;
        if (half == 2) {
            const Pair in = split_two(first, second);
            made = butterfly(in.low, in.high, twice(w + i / 4), twice(over + i / 4), m);
            made = split_two(made.low, made.high);
        } else {
            const Pair in = split_one(first, second);
            made = butterfly(in.low, in.high, crossed(w + i / 2), crossed(over + i / 2), m);
            made = split_one(made.low, made.high);
        }
        _mm256_storeu_pd(x + i, made.low);
        _mm256_storeu_pd(x + i + 4, made.high);
    }
}

void centre(double* x, std::size_t size, const Modulus& m) {
    for (std::size_t i = 0; i < size; i += 4) _mm256_storeu_pd(x + i, centred(_mm256_loadu_pd(x + i), m));
}

Modulus make_modulus(u64 modulus) {
    return {_mm256_set1_pd(static_cast<double>(modulus)), _mm256_set1_pd(1.0 / static_cast<double>(modulus))};
}

void load(const u8* row, double* x, std::size_t size, const Modulus& m) {
    for (std::size_t i = 0; i < size; i += 4) _mm256_storeu_pd(x + i, centred(from_words(row + 8 * i), m));
}

void forward(u8* rows, std::size_t count, std::size_t size, u64 modulus, const u8* roots) {
    const Roots by = make_roots(roots, size, modulus);
    const Modulus m = make_modulus(modulus);
    std::vector<double> x(size);
    for (std::size_t row = 0; row < count; ++row, rows += 8 * size) {
        load(rows, x.data(), size, m);
        int stages = 0;
        for (std::size_t groups = 1, half = size / 2; groups < size; groups *= 2, half /= 2) {
            stage(x.data(), groups, half, by, m, forward_pair);
            if (++stages % 4 == 0) centre(x.data(), size, m);
        }
        for (std::size_t i = 0; i < size; i += 4) {
            to_words(centred(_mm256_loadu_pd(x.data() + i), m), m, rows + 8 * i);
        }
    }
    wipe(x.data(), 8 * size);
}

void inverse(u8* rows, std::size_t count, std::size_t size, u64 modulus, const u8* roots, u64 scale) {
    const Roots by = make_roots(roots, size, modulus);
    const Modulus m = make_modulus(modulus);
    const double last = centred_word(scale, modulus);
    const Four w = _mm256_set1_pd(last), over = _mm256_set1_pd(last / static_cast<double>(modulus));
    std::vector<double> x(size);
    for (std::size_t row = 0; row < count; ++row, rows += 8 * size) {
        load(rows, x.data(), size, m);
        int stages = 0;
        for (std::size_t groups = size / 2, half = 1; groups >= 1; groups /= 2, half *= 2) {
            stage(x.data(), groups, half, by, m, inverse_pair);
            if (++stages % 2 == 0) centre(x.data(), size, m);
        }
        for (std::size_t i = 0; i < size; i += 4) {
            const Four value = times(_mm256_loadu_pd(x.data() + i), w, over, m);
            to_words(centred(value, m), m, rows + 8 * i);
        }
    }
    wipe(x.data(), 8 * size);
}

void multiply(const u8* a, const u8* b, std::size_t b_size, std::size_t size, u64 modulus, u8* out) {
    const Modulus m = make_modulus(modulus);
    for (std::size_t i = 0, j = 0; i < size; i += 4, j = j + 4 == b_size ? 0 : j + 4) {
        const Four x = centred(from_words(a + 8 * i), m), w = centred(from_words(b + 8 * j), m);
        to_words(centred(times(x, w, _mm256_mul_pd(w, m.inverse), m), m), m, out + 8 * i);
    }
}

}  // namespace

const NttFunctions kNttFma = {forward, inverse, multiply};

}  // namespace tc

TC_TARGET_POP

#endif
