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
# # Who may do what, and who can take it back
#
# A registry grants a bank the use of its companies, the bank passes a part on to its branch. We look at what the grant
# says, ask what would be allowed before anything is spent, lay down rules above all grants, suspend, take back, and
# give the log to a regulator.

# %%
import tempfile
import time
from pathlib import Path

import pandas as pd

import trustcompute as tc
from trustcompute.broker import delegation
from trustcompute.broker.describe import describe
from trustcompute.broker.grant import AssetClaim, Limit, hash_of
from trustcompute.broker.order import new_order
from trustcompute.broker.rules import Ceiling, DenyList, Policy
from trustcompute.node.inspection import Inspection
from trustcompute.transport import LocalChannel

space = tc.CertificateAuthority.create("a data space")
registry, bank, branch, regulator = (
    space.issue(f"{name}.example") for name in ("registry", "bank", "branch", "regulator")
)
folder = Path(tempfile.mkdtemp())
broker = tc.Broker.open(folder / "book", registry)
companies = {"code": [f"C{number}" for number in range(500)]}
node = tc.Node(
    registry,
    broker,
    [tc.Dataset("companies", companies, version="2026", keys=["code"])],
    regulators=[regulator.name],
)

# %% [markdown]
# A common kind of grant, as narrow as its use allows, and what it says in plain words:

# %%
granted = tc.Grant.preset(
    "match-rows",
    issuer=registry.thumbprint,
    audience=registry.name,
    subject=bank.name,
    subject_key=bank.thumbprint,
    asset=AssetClaim(id="companies", classification="general", grade="general", personal=False),
    purposes=["credit"],
    contingency="0" * 64,
    now=int(time.time()),
    depth=1,
)
root = broker.issue(granted)
print(granted.describe())

# %% [markdown]
# The bank passes a part on. More than it has, it cannot.

# %%
passed = delegation.delegate(
    root,
    issuer=bank.key.public,
    subject=branch.name,
    subject_key=branch.thumbprint,
    now=int(time.time()),
    limits={"calls": Limit(total=3)},
)
chain = delegation.extend(root, passed, bank.key)
print(describe(delegation.read_chain(chain)).partition("Of what")[0])

# %% [markdown]
# What would be allowed? A verdict for every rule, and the price; nothing is spent.

# %%
session = node.session(chain, branch)


def verdicts(**asked):
    found = session.explain("psi.ecdh.v1", "companies", rows=3, **asked)
    rows = [
        (one.rule, one.allowed, "; ".join(r.fix for r in one.reasons) or one.kept) for one in found.verdicts
    ]
    return pd.DataFrame(rows, columns=["rule", "allowed", "says"]).set_index("rule")


verdicts(purpose="marketing").query("not allowed")

# %%
ours = {"customer": ["C7", "C499", "X1"]}
found = session.intersect("companies", ours, on={"customer": "code"})
found.left_rows, found.receipt.verify(broker.log_key).type

# %% [markdown]
# ## Rules above all grants
#
# A policy caps what any grant gives; a deny-list comes before everything. Both are signed and have versions.

# %%
own = {"iss": registry.thumbprint, "aud": registry.name, "iat": int(time.time())}
policy = Policy(**own, version=1, grades={"general": Ceiling(max_rows=2)})
broker.publish(policy.sign(registry.key))
verdicts().query("not allowed")

# %%
broker.publish(Policy(**own, version=2).sign(registry.key))
broker.publish(DenyList(**own, version=1, names=[branch.name]).sign(registry.key))
try:
    session.intersect("companies", ours, on={"customer": "code"})
except tc.errors.Refused as refused:
    print(refused)
broker.publish(DenyList(**own, version=2).sign(registry.key))

# %% [markdown]
# ## Suspend, resume, take back
#
# The bank orders about what it passed on, without asking the registry. An order cannot be repeated.

# %%
for do in ("suspend", "resume", "revoke"):
    time.sleep(0.01)  # orders are numbered by the millisecond
    session.order(new_order(do, hash_of(chain), audience=registry.name, key=bank.key))
    refusing = session.explain("psi.ecdh.v1", "companies", rows=3, columns=["code"], keys="0" * 64)
    print(f"{do:8}", [one.rule for one in refusing.verdicts if not one.allowed])

# %% [markdown]
# ## What the record says
#
# A regulator, named by the node, reads the log whole, checked against its signed checkpoint.

# %%
inspected = Inspection(LocalChannel(node, caller=regulator.name, peer=registry.name), broker.log_key)
entries = inspected.entries()
pd.Series([entry.type for entry in entries]).value_counts().rename("entries").to_frame()

# %%
denied = next(entry for entry in entries if entry.type == "job.denied")
[reason["rule"] for reason in denied.fields["reasons"]], [rule["kind"] for rule in denied.fields["rules"]]

# %%
report = broker.audit()
node.close()
broker.close()
report.size, dict(report.jobs)
