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
# # A month of a small market
#
# Three holders, an operator, two buyers. What is used is metered and recorded; at the end of the month the log alone
# says who owes what to whom, to the cent.

# %%
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from trustcompute.broker.broker import Broker
from trustcompute.broker.clearing import contribution, export
from trustcompute.broker.grant import AssetClaim, PricePlan, Share, Tier, new_grant
from trustcompute.broker.job import Release
from trustcompute.broker.policy import Asset
from trustcompute.broker.request import new_request
from trustcompute.primitives.identity import CertificateAuthority
from trustcompute.protocol.operation import OutputForm
from trustcompute.testing import THREE_TURNS, FakeClock

DAY = 86_400
START = 1_767_225_600  # 1 January 2026
END = START + 31 * DAY
clock = FakeClock(START)
authority = CertificateAuthority.create("a small market")
operator = authority.issue("operator.example")
buyers = {name: authority.issue(name) for name in ("bank.example", "insurer.example")}
broker = Broker.open(Path(tempfile.mkdtemp()), operator, clock=clock)
broker.register(Asset("patients", "2026", "0" * 64, "health", "important", personal=True, rows=50_000))

# %% [markdown]
# ## Prices and shares
#
# The bank pays per use, the insurer by tiers. A fifth stays with the operator, a tenth goes to an earmarked account,
# the rest is a pool of the three hospitals that hold the data.

# %%
split = [
    Share(party=operator.thumbprint, share="1/5"),
    Share(party="public:education", share="1/10"),
    Share(party="pool:hospitals", share="7/10"),
]
plans = {
    "bank.example": PricePlan(kind="per_use", currency="EUR", per_call="250", per_row="1/3"),
    "insurer.example": PricePlan(
        kind="tiered",
        currency="EUR",
        unit="rows",
        window="month",
        tiers=[Tier(upto=20_000, rate="0.5"), Tier(rate="0.2")],
    ),
}
grants = {
    name: broker.issue(
        new_grant(
            issuer=operator.thumbprint,
            audience=operator.name,
            subject=name,
            subject_key=buyer.thumbprint,
            asset=AssetClaim(id="patients", classification="health", grade="important", personal=True),
            operations=[THREE_TURNS.id],
            purposes=["research"],
            outputs=[OutputForm.AGGREGATE],
            contingency="0" * 64,
            now=START,
            price=plans[name],
            split=split,
        )
    )
    for name, buyer in buyers.items()
}

# %% [markdown]
# ## A month of use
#
# Every day each buyer asks once, for more or fewer rows. A job is reserved, armed and charged, as it is when two
# organisations compute over a wire.


# %%
def ask(name: str, rows: int) -> None:
    """One charged job."""
    token = new_request(
        grant=grants[name],
        operation=THREE_TURNS.id,
        dataset="patients",
        params={},
        rows=rows,
        purpose="research",
        audience=operator.name,
        san=name,
        key=buyers[name].key.public,
        now=clock.now(),
    ).sign(buyers[name].key)
    job = broker.reserve(broker.verify_request(token, peer=name, grant=grants[name]), THREE_TURNS)
    broker.arm(job.id)
    broker.post(job.id, release=Release(0, 1, "0" * 64, "0" * 64, job.id), usage=job.reserved)


for day in range(31):
    clock.time = START + day * DAY + 3600
    ask("bank.example", 400 + 37 * day % 300)
    ask("insurer.example", 1000 + 211 * day % 900)

# %% [markdown]
# ## What each hospital contributed
#
# The Shapley value of what their data are worth together: here, how many patients of a rare disease they have, up to
# the 500 that a study needs.

# %%
patients = {"hospital-a": 240, "hospital-b": 180, "hospital-c": 160}
found = contribution.shapley(list(patients), lambda who: min(500, sum(patients[name] for name in who)))
broker.clearing.weigh("pool:hospitals", START, END, found.weights(), method=found.method, evidence=found.hash)
pd.Series({name: float(amount) for name, amount in found.amounts.items()}, name="Shapley value")

# %% [markdown]
# ## Closing the month
#
# Amounts are exact until here. They are rounded once, so that every line, payer and payee is within one cent of its
# exact amount; what is left over is carried on.

# %%
clock.time = END
statement = broker.close_period(START, END)
names = {buyer.thumbprint: name for name, buyer in buyers.items()} | {operator.thumbprint: "operator"}
lines = export.tables(broker.clearing.record(), statement)["lines"].to_pandas()
lines["payer"], lines["payee"] = lines.payer.replace(names), lines.payee.replace(names)
lines[["payer", "payee", "money", "residual_num", "residual_den"]]

# %%
revenue = lines.pivot_table(index="payee", columns="payer", values="amount", aggfunc="sum") / 100
axes = revenue.plot.barh(stacked=True, figsize=(7, 3), xlabel="EUR in January", ylabel="")
plt.tight_layout()

# %% [markdown]
# Money is conserved: what payers owe is what payees get, and the exact amounts differ by the residuals alone.

# %%
assert sum(statement.positions().values()) == 0
assert sum(line.rated for line in statement.lines) == sum(
    line.amount + line.residual for line in statement.lines
)
statement.totals()

# %% [markdown]
# ## Paying
#
# All but the earmarked account agreed to be netted together.

# %%
members = [*names, *patients]
payments = export.payments(broker.clearing.net(START, END, members)).to_pandas()
payments.replace(names)[["debtor", "creditor", "amount", "currency"]]

# %% [markdown]
# ## Anybody can check it
#
# The audit replays the log: every charge, the statement, the payments.

# %%
report = broker.audit()
broker.close()
jobs, periods = report.jobs["posted"], len(report.periods)
print(f"{report.size} entries, {jobs} jobs, {periods} closed period: all of it follows")
