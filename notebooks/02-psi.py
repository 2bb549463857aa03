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
# # Two protocols, and a sum without the matches
#
# The same intersection by two protocols: one from curves, with few bytes, one from vector oblivious linear
# evaluation, with little arithmetic. Then the sum of a column over the rows that match, which nobody sees.

# %%
import time

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from trustcompute import errors, kernels, psi

print("kernels:", kernels.active().name)

# %%
bank = pd.DataFrame({"company": [f"C{i:05d}" for i in range(0, 2000, 2)]})
number = np.arange(1200)
registry = pd.DataFrame(
    {
        "company": [f"C{i:05d}" for i in number],
        "revenue": number * 7919 % 1_000_000,
        "industry": pd.cut(
            number * 37 % 100, [-1, 59, 89, 98, 99], labels=["retail", "transport", "energy", "mining"]
        ).astype(str),
    }
)

rows = {
    protocol: psi.intersect(bank, registry, on="company", protocol=protocol)
    for protocol in ("psi.dh.v1", "psi.vole.v1")
}
assert (rows["psi.dh.v1"].left_rows == rows["psi.vole.v1"].left_rows).all()
{protocol: found.count for protocol, found in rows.items()}

# %% [markdown]
# ## Which one, and why
#
# `psi.plan` weighs arithmetic against bytes, for these kernels and a bandwidth, and says who learns what before
# anything is done. Small sets go by curves, large ones by VOLE, whose first messages cost the same whatever the
# size.

# %%
print(psi.plan(1000, 1200, bandwidth=10**9))
print()
print(psi.plan(10**6, 10**6, bandwidth=10**9))

# %% [markdown]
# ## Time and bytes against n
#
# Both sides in this process, one thread; half of the keys are shared.

# %%
largest = 2**13 if kernels.active().name != "reference" else 2**7
measured = []
for n in [2**i for i in range(6, largest.bit_length())]:
    left, right = {"id": np.arange(n)}, {"id": np.arange(n // 2, n // 2 + n)}
    for protocol in ("psi.dh.v1", "psi.vole.v1"):
        started = time.perf_counter()
        found = psi.intersect(left, right, on="id", protocol=protocol)
        assert found.count == n // 2
        sent = found.cost.bytes_sent + found.cost.bytes_received
        measured.append((protocol, n, time.perf_counter() - started, sent))
costs = pd.DataFrame(measured, columns=["protocol", "keys a side", "seconds", "bytes"])
costs.pivot(index="keys a side", columns="protocol", values="bytes")

# %%
figure, axes = plt.subplots(1, 2, figsize=(9, 3))
for axis, what in zip(axes, ("seconds", "bytes"), strict=True):
    for protocol, part in costs.groupby("protocol"):
        axis.loglog(part["keys a side"], part[what], marker="o", label=protocol, base=2)
    axis.set_xlabel("keys a side")
    axis.set_ylabel(what)
axes[0].legend()
figure.tight_layout()

# %% [markdown]
# ## The sum over the matches, without the matches
#
# The bank wants to know how much revenue its customers make, by industry. The registry may not learn who they
# are, the bank may not learn any company's revenue. The registry says within which bounds one company's revenue
# lies; nothing is told of fewer than 20 companies.

# %%
ask = {
    "on": "company",
    "values": {"revenue": psi.Bounds(0, 1_000_000)},
    "by": {"industry": ["retail", "transport", "energy", "mining"]},
    "min_group": 20,
}
summed = psi.intersect_sum(bank, registry, **ask)
summed.to_pandas()

# %%
plain = (
    registry[registry["company"].isin(bank["company"])].groupby("industry")["revenue"].agg(["count", "sum"])
)
for industry, row in plain.iterrows():
    assert summed.sum("revenue", industry) in (row["sum"], None)
print("equal to the plain join; left out:", summed.left_out)
print("bank    :", summed.leakage.consumer)
print("registry:", summed.leakage.provider)

# %% [markdown]
# A set of few keys is told nothing, not even how many of them match: one key alone is no membership test.

# %%
try:
    psi.intersect_sum(bank.head(5), registry, **ask)
except errors.Refused as refused:
    print(refused)

# %% [markdown]
# Two sets that differ by one company differ by its revenue. Noise on the sums hides the values of any one
# company; the budget is charged like every other use.

# %%
noisy = psi.intersect_sum(bank, registry, **ask, noise=psi.Noise(rho="0.5"))
pd.DataFrame({"exact": summed.to_pandas()["sum_revenue"], "noisy": noisy.to_pandas()["sum_revenue"]})

# %% [markdown]
# ## What it costs
#
# Four multiplications on the curve for each pair of keys, and 12.5 bytes for each of the registry's integers: its
# key's, for every group a count and a sum. Without groups it is one integer a key.

# %%
whole = psi.intersect_sum(bank, registry, on="company", values=ask["values"], min_group=20)
pd.DataFrame(
    {
        "by industry": [summed.cost.bytes_sent, summed.cost.bytes_received],
        "in all": [whole.cost.bytes_sent, whole.cost.bytes_received],
    },
    index=["bytes the bank sends", "bytes the registry sends"],
)

# %% [markdown]
# ## What it does not protect
#
# Adversary: semi-honest, either side. A bank that deviates could choose other rows than those that match and
# learn sums of a few values, though not whose. The count of a group that is left out alone is what is missing to
# the whole. The protocol's page says the rest.
