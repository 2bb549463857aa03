# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The last bits tell
#
# Laplace noise in floating point is not private. Its values come from a set with holes, and adding them to two
# different
# true values gives two different sets of results: an output that only one table could give tells which table it
# was (I.
# Mironov, *On Significance of the Least Significant Bits for Differential Privacy*, CCS 2012). We attack the textbook
# sampler, then run the same attack on a release of this library.

# %%
import math
import os

import pyarrow as pa

from trustcompute import dp

GRID = 2**53


def naive_laplace() -> float:
    """The textbook's: the sign and logarithm of a uniform double in (0, 1)."""
    word = int.from_bytes(os.urandom(8), "little") >> 10
    sign, uniform = (-1, 1)[word & 1], ((word >> 1) + 1) / GRID
    return sign * math.log(uniform)


def reachable(noise: float) -> bool:
    """Whether the sampler could have drawn this: some uniform double near e^-|noise| must give it back exactly."""
    guess = round(math.exp(-abs(noise)) * GRID)
    return any(
        0 < near <= GRID and math.log(near / GRID) == -abs(noise) for near in range(guess - 8, guess + 9)
    )


# %% [markdown]
# Two neighbouring tables: nobody, or one person. The true count is 0 or 1. The attacker sees the noisy count,
# and asks
# whether it is possible at all had the true count been 0.

# %%
RUNS = 2000
for truth in (0, 1):
    outputs = [truth + naive_laplace() for _ in range(RUNS)]
    impossible = sum(not reachable(output) for output in outputs)
    print(
        f"naive noise, true count {truth}: {impossible / RUNS:.1%} of outputs are impossible for a count of 0"
    )

# %% [markdown]
# With ε = 1 the two should be within a factor *e* of each other. An output that is impossible for one table
# proves that it was
# the other: no ε holds.
#
# Here, noise is an integer, added to an integer, and multiplied by a power of two last. Every output is
# possible for both.

# %%
empty, one = (pa.table({"person": pa.array(people, pa.string())}) for people in ([], ["Ann"]))
for truth, table in ((0, empty), (1, one)):
    outputs = [
        dp.release(table, [dp.count()], budget=dp.pure(1)).to_arrow()["count"][0].as_py() for _ in range(RUNS)
    ]
    impossible = sum(not isinstance(output, int) for output in outputs)
    zero = sum(output >= 1 for output in outputs)
    print(f"here, true count {truth}: {impossible} impossible outputs; at least 1 in {zero / RUNS:.1%}")

# %% [markdown]
# At least 1 comes out in about 27 % and 73 %: a factor of *e*, which is what ε = 1 allows. Sums of real numbers
# behave alike: the
# outputs lie on one lattice, whatever the data.

# %%
for values in ([0.1, 0.2, 0.3], [0.30000000000000004, 0.7, 0.123456789]):
    release = dp.release(pa.table({"x": values}), [dp.sum("x", 0, 1)], budget=dp.pure(1))
    step = float(release.plan.lattice(0).step)
    output = release.to_arrow()["sum_x"][0].as_py()
    print(f"step {step:.3g}; output / step = {output / step}")
    assert (output / step).is_integer()
