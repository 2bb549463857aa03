// The part that the exponents of an inverse and of a square root share, for one element or several at a time.
//
// Included by field.h and field_avx2.h, each within a namespace of its own and hence without a guard: what a template
// may use of the processor is settled where its text stands, not where it is called.

template <class F>
PowerLadder<F> power_ladder(const F& z) {
    const F z2 = squared(z), z9 = squared(z2, 2) * z, z11 = z9 * z2;
    const F e5 = squared(z11) * z9;  // e<k> = z^(2^k - 1)
    const F e10 = squared(e5, 5) * e5;
    const F e20 = squared(e10, 10) * e10;
    const F e40 = squared(e20, 20) * e20;
    const F e50 = squared(e40, 10) * e10;
    const F e100 = squared(e50, 50) * e50;
    const F e200 = squared(e100, 100) * e100;
    return {squared(e200, 50) * e50, z11};
}

// 1/z = z^(p - 2), with 1/0 = 0.
template <class F>
F inverted(const F& z) {
    const PowerLadder<F> ladder = power_ladder(z);
    return squared(ladder.to_250, 5) * ladder.to_11;
}

// z^((p - 5)/8) = z^(2^252 - 3)
template <class F>
F root_power(const F& z) {
    return squared(power_ladder(z).to_250, 2) * z;
}
