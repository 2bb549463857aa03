"""Learning-with-errors parameters of ``verify.private.v1``, and why they decrypt correctly and hide.

Called by ``pir``. Regev encryption over 2³² with a public matrix, as SimplePIR uses it: Henzinger, Hong,
Corrigan-Gibbs, Meiklejohn and Vaikuntanathan, "One Server for the Price of Two" (USENIX Security 2023), §4 and
Appendix C. Theirs are n = 1024, σ = 6.4; that is estimated at 95 to 126 bits by the models in use today, so n is 1408
here.

``python -m trustcompute.verification.lwe`` prints the bound and checks the sampler.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

import numpy as np

from trustcompute.errors import VerificationError
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.sampling import discrete_gaussian

DIMENSION: Final = 1408
"""n: words of a secret, uniform modulo 2³²."""
VARIANCE: Final = Fraction(4096, 100)
"""σ² of the discrete Gaussian error: σ = 6.4."""
SCALE_BITS: Final = 24
"""log₂ Δ: a byte of the database is one of p = 2⁸ = 2³²/Δ values."""
LARGEST_ENTRY: Final = 128
"""|d|: a byte is read as a signed one."""
FAILURE_BITS: Final = 40
"""-log₂ of the probability that any byte of one answer is decrypted wrongly."""
MAX_COLUMNS: Final = 2**18
"""m: more columns would cost more than longer ones long before the noise does."""
MAX_LENGTH: Final = 2**16
"""Bytes of a column: its hint has 369 MB then."""
SECURITY: Final = {
    "assumption": "decision LWE, n = 1408, q = 2^32, uniform secret, discrete Gaussian error of sigma = 6.4",
    "attack": "primal uSVP, BKZ block size about 500",
    "classical_bits": 146,
    "quantum_bits": 132,
    "model": "core-SVP: 0.292 and 0.265 bits for each dimension of a block",
    "source": "Alkim, Ducas, Poeppelmann and Schwabe, New Hope (USENIX Security 2016), section 6.3",
}
"""The estimate this choice rests on. ``block_size`` repeats it; nobody has proved it."""


def noise_margin(columns: int, length: int) -> float:
    """(Δ/2) over the noise that an answer of ``length`` bytes exceeds with probability 2⁻⁴⁰: must be above 1.

    An answer's noise is Σ dⱼ·eⱼ with |dⱼ| ≤ 128. A discrete Gaussian is subgaussian with parameter σ (Canonne, Kamath
    and Steinke, NeurIPS 2020, Fact 13), so Pr[|noise| ≥ t] ≤ 2·exp(-t² / (2·128²·σ²·m)); a union over ``length``
    bytes.
    """
    spread = LARGEST_ENTRY * math.sqrt(VARIANCE * columns)
    tail = math.sqrt(2 * (math.log(2 * length) + FAILURE_BITS * math.log(2)))
    return float(2 ** (SCALE_BITS - 1)) / (spread * tail)


def error_variance(samples: int) -> float:
    """The sample variance of the error over σ²; raises ``VerificationError`` if it is off by 1 % or more."""
    drawn = discrete_gaussian(Rng.from_os(), VARIANCE, samples)
    ratio = float(np.mean(drawn.astype(np.float64) ** 2)) / float(VARIANCE)
    if abs(ratio - 1) >= 0.01:
        raise VerificationError(f"the sampler's variance is {ratio:.4f} times what it must be")
    return ratio


def block_size() -> tuple[int, int]:
    """(β, samples): the least BKZ block size, and how many samples, with which the primal attack succeeds.

    For a uniform secret of n words, m samples, d = m + n + 1: σ·√β ≤ δ^(2β-d-1)·q^(m/d), where
    δ = ((πβ)^(1/β)·β/(2πe))^(1/(2(β-1))). The secret is brought to the size of the error at the price of n samples
    (normal form), which an attacker has. Core-SVP (Alkim and others, §6.3).
    """
    best = (10**9, 0)
    for samples in range(600, 2200, 20):
        low, high = 60, best[0]
        while low < high:
            beta = (low + high) // 2
            low, high = (low, beta) if _succeeds(beta, samples) else (beta + 1, high)
        if low < best[0]:
            best = (low, samples)
    return best


def _succeeds(beta: int, samples: int) -> bool:
    d = samples + DIMENSION + 1
    root = ((math.pi * beta) ** (1 / beta) * beta / (2 * math.pi * math.e)) ** (1 / (2 * (beta - 1)))
    left = 0.5 * math.log2(float(VARIANCE)) + 0.5 * math.log2(beta)
    return left <= (2 * beta - d - 1) * math.log2(root) + 32 * samples / d


def main() -> None:
    """Print the noise bound for the sizes in use, the sampler's variance, and the security estimate."""
    for bits, length in ((14, 1024), (16, 2640), (18, 6624)):
        print(f"m = 2^{bits}, answers of {length} bytes: margin {noise_margin(2**bits, length):.2f}")
    print(f"variance of 10^6 samples / sigma^2 = {error_variance(10**6):.4f}")
    beta, samples = block_size()
    print(f"primal attack: block size {beta} with {samples} samples,", end=" ")
    print(f"classical {0.292 * beta:.0f} bits, quantum {0.265 * beta:.0f} bits")
    print(f"recorded: {SECURITY['classical_bits']} and {SECURITY['quantum_bits']}; {SECURITY['source']}")


if __name__ == "__main__":
    main()
