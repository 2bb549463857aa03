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
# # Two tables, one intersection
#
# An aviation registry and an airline want to know which aircraft both know. Neither shows the other its table. Here
# both sides run in this notebook, so that we can look at everything: what comes out, what each side learns, and what
# it costs on the wire.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from trustcompute import kernels, psi

print("kernels:", kernels.active().name)

# %%
registry = pd.DataFrame(
    {"tailnum": ["N10156", "N102UW", "N103US", "N104UW", "N10575"], "seats": [55, 182, 182, 182, 55]}
)
airline = pd.DataFrame(
    {"tail": ["N102UW", "N999XX", "N103US", " N102UW", None], "flight": [1545, 725, 1714, 1141, 44]}
)

found = psi.intersect(airline, registry, on={"tail": "tailnum"})
found

# %% [markdown]
# Rows come out with their duplicates. Nulls never match, and keys are compared after one published
# normalisation: the stray space in `" N102UW"` does not matter.

# %%
found.table().to_pandas()

# %% [markdown]
# ## Who learnt what
#
# Every result says it in words. By default the left side learns which of its own keys match, the right side learns a
# size. Ask for the count alone, and nobody learns which.

# %%
for options in ({}, {"output": "count"}, {"reveal": "both"}):
    result = psi.intersect(airline, registry, on={"tail": "tailnum"}, **options)
    print(options or "default")
    print("  left :", result.leakage.consumer)
    print("  right:", result.leakage.provider)

# %% [markdown]
# Where both sides learn their rows and both tables are at hand, as in a notebook, they can be joined.

# %%
psi.intersect(airline, registry, on={"tail": "tailnum"}, reveal="both").join().to_pandas()

# %% [markdown]
# ## What it costs
#
# Bytes follow from the two sizes alone: 32 a key from the left side; from the right side 32 for each of these and
# a short digest for each of its own. Time is dominated by multiplications on the curve: four a pair of keys.

# %%
largest = 2**12 if kernels.active().name != "reference" else 2**8
sizes = [2**i for i in range(5, largest.bit_length())]
rows = []
for n in sizes:
    left, right = {"id": np.arange(n)}, {"id": np.arange(n // 2, n // 2 + n)}
    started = time.perf_counter()
    result = psi.intersect(left, right, on="id")
    rows.append((n, time.perf_counter() - started, result.cost.bytes_sent, result.cost.bytes_received))
    assert result.count == n // 2
costs = pd.DataFrame(rows, columns=["keys a side", "seconds", "bytes out", "bytes in"])
(costs[["bytes out", "bytes in"]].div(costs["keys a side"], axis=0)).tail(1).round(0)

# %%
figure, (left_plot, right_plot) = plt.subplots(1, 2, figsize=(9, 3))
costs.plot(x="keys a side", y="seconds", marker="o", logx=True, logy=True, legend=False, ax=left_plot)
left_plot.set_ylabel("seconds, both sides, one thread")
costs.plot(x="keys a side", y=["bytes out", "bytes in"], marker="o", logx=True, logy=True, ax=right_plot)
right_plot.set_ylabel("bytes")
figure.tight_layout()

# %% [markdown]
# ## What it does not protect
#
# A set intersection answers membership questions. Whoever receives may put any keys into its set, so identifiers
# from a small space (phone numbers, identity numbers) can be enumerated, a run at a time. Grants bound how many
# keys a run may bring and how many runs there are; the log keeps what was asked. Adversary: semi-honest. The
# protocol's page says the rest.
