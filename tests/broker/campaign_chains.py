"""Random trees of delegated grants: no descendant may do what an ancestor may not, alone or with its siblings.

``python tests/broker/campaign_chains.py --chains 100000`` for the whole campaign; the tests run a small one. What a
grant allows is asked of the policy itself with random requests, and the meter is driven with random jobs: neither
knows how attenuation is checked. About half of the links that are tried ask for more than their parent has.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from trustcompute.broker import deciding, delegation, meter, policy
from trustcompute.broker.grant import (
    AssetClaim,
    Bounds,
    Confirmation,
    Grant,
    Limit,
    PricePlan,
    VerifiedGrant,
)
from trustcompute.broker.meter import Balances
from trustcompute.broker.policy import Asset, Case
from trustcompute.broker.request import DeclaredSizes, Request
from trustcompute.broker.rules import NO_RULES
from trustcompute.broker.standing import Standing
from trustcompute.errors import GrantError
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Usage

NOW, DAY = 1000, 0
PARTIES = [letter * 43 for letter in "abcde"]
OPERATIONS = ["one.v1", "two.v1"]
UNITS = ["calls", "rows"]
FREE = PricePlan(kind="free")
ASSETS = [
    Asset("d", version, schema * 64, "k", "general", personal=False, rows=9)
    for version in "12"
    for schema in "ab"
]


@dataclass
class Outcome:
    """What a campaign did. chains: grants with at least one ancestor that were accepted."""

    chains: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    probes: int = 0
    allowed: int = 0
    jobs: int = 0
    turned_down: int = 0


def run(chains: int, seed: int) -> Outcome:
    """Grow trees until there are so many chains; raises ``AssertionError`` at the first amplification."""
    chance, outcome = random.Random(seed), Outcome()
    while outcome.chains < chains:
        tree = _tree(chance, outcome)
        for link in tree[1:]:
            _probe(chance, link, outcome)
        _spend(chance, tree, outcome)
    return outcome


def _tree(chance: random.Random, outcome: Outcome) -> list[VerifiedGrant]:
    root = Grant(
        iss="i" * 43,
        sub="s",
        aud="n",
        jti="r",
        iat=0,
        contingency="0" * 64,
        price=FREE,
        depth=chance.randint(1, 8),
        **_terms(chance),
    )
    tree = [VerifiedGrant(root, "", "0")]
    for _ in range(chance.randint(2, 12)):
        parent = chance.choice([link for link in tree if link.claims.depth or chance.random() < 0.05])
        above = parent.claims
        kept = {name: getattr(above, name) for name in Grant.model_fields}
        proposed = _terms(chance)
        changes = {name: proposed[name] for name in proposed if chance.random() < 0.15}
        if {"nbf", "exp"} & set(changes):
            changes |= {"nbf": proposed["nbf"], "exp": proposed["exp"]}
        issuer = above.cnf.jkt if chance.random() < 0.95 else chance.choice(PARTIES)
        changes |= {"cnf": proposed["cnf"], "iss": issuer, "parent": "0" * 64}
        changes["depth"] = (
            max(above.depth - 1, 0) if chance.random() < 0.9 else chance.randint(0, above.depth)
        )
        for absent in ("scenarios", "territory", "review"):
            if chance.random() < 0.2:
                changes[absent] = None
        try:
            child = delegation.inherit(Grant(**kept | changes), above)
            delegation.check(child, above)
        except GrantError as error:
            outcome.refused[error.field.split(".")[0]] += 1
            continue
        link = VerifiedGrant(child, "", str(len(tree)), parent)
        assert child.iss == above.cnf.jkt, f"a stranger delegated {above} as {child}"
        assert len(link.chain) <= 1 + root.depth, f"a longer chain than {root} allows"
        tree.append(link)
        outcome.chains += 1
    return tree


def _terms(chance: random.Random) -> dict[str, Any]:
    begin = chance.randint(0, NOW)
    return {
        "cnf": Confirmation(jkt=chance.choice(PARTIES)),
        "nbf": begin,
        "exp": chance.randint(begin + 1, 3 * NOW),
        "asset": AssetClaim(
            id="d",
            version=_maybe(chance, chance.choice("12")),
            schema_hash=_maybe(chance, chance.choice("ab") * 64),
            classification="k",
            grade="general",
            personal=False,
        ),
        "right": chance.choice(delegation.RIGHTS),
        "operations": {
            name: Bounds(
                columns=_maybe(chance, _some(chance, "xyz")),
                max_rows=_maybe(chance, chance.randint(1, 20)),
                min_rows=_maybe(chance, chance.randint(0, 8)),
                min_group=_maybe(chance, chance.randint(0, 5)),
                counterparties=_maybe(chance, _some(chance, PARTIES)),
            )
            for name in _some(chance, OPERATIONS)
        },
        "purposes": _some(chance, "pqr"),
        "scenarios": _maybe(chance, _some(chance, "stu")),
        "territory": _maybe(chance, _some(chance, "vw")),
        "outputs": _some(chance, [OutputForm.COUNT, OutputForm.MATCHED_IDS, OutputForm.AGGREGATE]),
        "limits": {
            unit: Limit(
                total=_maybe(chance, chance.randint(0, 12)),
                per_call=_maybe(chance, chance.randint(0, 6)),
                per_day=_maybe(chance, chance.randint(0, 9)),
            )
            for unit in UNITS
            if chance.random() < 0.7
        },
    }


def _probe(chance: random.Random, link: VerifiedGrant, outcome: Outcome) -> None:
    """What the child's holder may ask for, the parent's holder may, in its own name."""
    parent = link.parent
    assert parent is not None
    for _ in range(3):
        case = _case(chance, link.claims)
        outcome.probes += 1
        if policy.decide(case):
            continue
        outcome.allowed += 1
        own, above = link.claims.cnf.jkt, parent.claims
        names = {
            name: above.cnf.jkt if getattr(case.request, name) == own else getattr(case.request, name)
            for name in ("asker", "recipient", "payer")
        }
        asked = case.request.model_copy(update=names)
        wider = replace(case, grant=above, request=asked, links=(above,))
        # A right may be passed on by who may not use it: hold delegates, process computes.
        reasons = [reason for reason in policy.decide(wider) if reason.rule != "right"]
        assert not reasons, f"amplified: {reasons} from {above} to {link.claims}"


def _case(chance: random.Random, grant: Grant) -> Case:
    """A request that is likely to be near what the grant allows."""
    name = chance.choice(list(grant.operations))
    bounds = grant.operations[name]
    known = [grant.cnf.jkt, *(bounds.counterparties or ())]
    form = chance.choice(grant.outputs)
    request = Request(
        jti="0" * 32,
        op=name,
        dataset="d",
        params={},
        sizes=DeclaredSizes(consumer=chance.choice([bounds.max_rows or 30, bounds.min_rows or 0, 9])),
        purpose=chance.choice(grant.purposes),
        scenario=chance.choice(grant.scenarios or "stu"),
        territory=chance.choice(grant.territory or "vw"),
        aud="n",
        san="s",
        key="k" * 43,
        iat=0,
        exp=1,
        grant="0" * 64,
        asker=grant.cnf.jkt,
        recipient=chance.choice(known),
        payer=grant.cnf.jkt,
    )
    operation = Operation(
        name, lambda p, _: dict(p), lambda _: form, lambda *_: Usage(), lambda _: Leakage("", ""), "a", "b"
    )
    params = {"columns": [chance.choice(bounds.columns or "xyz")], "min_group": bounds.min_group or 0}
    now = chance.choice([grant.nbf, grant.exp - 1])
    return Case(
        grant=grant,
        request=request,
        operation=operation,
        params=params,
        asset=chance.choice(ASSETS),
        standing=Standing(),
        now=now,
        links=(grant,),
        usage=Usage(),
        rules=NO_RULES,
    )


def _spend(chance: random.Random, tree: list[VerifiedGrant], outcome: Outcome) -> None:
    """Random jobs of any link: what a link and all below it used never exceeds its own limits."""
    balances: Balances = {}
    used: dict[str, Counter[str]] = {link.hash: Counter() for link in tree}
    for _ in range(2 * len(tree)):
        link = chance.choice(tree)
        usage = Usage(calls=1, rows=chance.randint(0, 5))
        accounts = deciding.grant_accounts(link)
        outcome.jobs += 1
        if any(meter.shortfalls(accounts, usage, DAY, balances)):
            outcome.turned_down += 1
            continue
        balances |= meter.hold(meter.places(accounts, usage, DAY), balances)
        if chance.random() < 0.7:
            balances |= meter.settle(tuple(account.name for account in accounts), usage, usage, DAY, balances)
        above: VerifiedGrant | None = link  # not by ``chain``, by which accounts are found
        while above is not None:
            used[above.hash].update({"calls": usage.calls, "rows": usage.rows})
            above = above.parent
    for link in tree:
        for unit, limit in link.claims.limits.items():
            bounds = [bound for bound in (limit.total, limit.per_day) if bound is not None]
            assert all(used[link.hash][unit] <= bound for bound in bounds), (unit, limit, used[link.hash])


def _maybe(chance: random.Random, value: Any) -> Any:
    return value if chance.random() < 0.5 else None


def _some(chance: random.Random, values: Any) -> tuple[Any, ...]:
    return tuple(chance.sample(list(values), chance.randint(1, len(values))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    began = time.perf_counter()
    outcome = run(options.chains, options.seed)
    print(
        f"{outcome.chains:,} chains, {outcome.refused.total():,} links refused, "
        f"{outcome.probes:,} requests tried ({outcome.allowed:,} allowed), "
        f"{outcome.jobs:,} jobs ({outcome.turned_down:,} turned down): no amplification, "
        f"{time.perf_counter() - began:.0f} s"
    )
    print(
        "refused by claim:", ", ".join(f"{name} {count:,}" for name, count in outcome.refused.most_common())
    )


if __name__ == "__main__":
    main()
