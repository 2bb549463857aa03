"""A grant in plain words, on one page: what it lets whom see. For people who sign it, and for those it is about.

Made from the claims alone: whether a grant is genuine or still stands, only its node can say.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Final

from trustcompute.broker.grant import Bounds, Grant, Limit
from trustcompute.protocol.operation import OutputForm

_LEARNS: Final = {
    OutputForm.YES_NO: "whether a statement about a record is true, yes or no",
    OutputForm.COUNT: "how many keys both sides hold, and not which",
    OutputForm.AGGREGATE: "sums over records, and no single one",
    OutputForm.MATCHED_IDS: "which of the keys it brings are in the dataset",
    OutputForm.MATCHED_LABELS: "columns of the dataset, for those of the keys it brings that are in it",
    OutputForm.DP_RELEASE: "aggregates with noise, by which the presence of nobody can be told",
}
_RIGHTS: Final = {
    "hold": "may pass the grant on and compute nothing itself",
    "process": "may compute, in its own name",
    "operate": "may compute and use what comes out in a product",
}
_SMALL: Final = {"rho": ("ρ", 12), "epsilon": ("ε", 12), "delta": ("δ", 18)}
_SPANS: Final = {"total": "in all", "per_day": "a day (UTC)", "per_call": "a job"}


def describe(chain: Sequence[Grant]) -> str:
    """The page for the last of a chain of grants, root first, each with what it inherits."""
    grant = chain[-1]
    lines = [f"What this grant lets {grant.sub} see", ""]
    for heading, words in _sections(chain):
        lines.append(f"{heading}:")
        lines += [f"  {line}" for line in words]
    return "\n".join(lines) + "\n"


def _sections(chain: Sequence[Grant]) -> Iterator[tuple[str, list[str]]]:
    grant = chain[-1]
    yield "Who", list(_who(chain))
    yield "Of what", list(_of_what(grant))
    yield (
        "What it learns",
        [
            *(_LEARNS[form] for form in grant.outputs),
            "never a row of the dataset: no computation gives rows out",
        ],
    )
    yield "How", [_operation(name, bounds) for name, bounds in sorted(grant.operations.items())]
    yield "What for", list(_what_for(grant))
    yield "How much", list(_how_much(grant)) or ["as often as it likes: no limit is set"]
    yield "Price", list(_price(grant))
    yield "When", list(_when(grant))
    yield (
        "If something goes wrong",
        [
            "whoever granted it, those above them, and the node's operator can suspend or revoke it at any time",
            f"the plan for that has SHA-256 {grant.contingency}",
        ],
    )


def _who(chain: Sequence[Grant]) -> Iterator[str]:
    grant = chain[-1]
    yield f"{grant.sub}, with the key {grant.cnf.jkt}, {_RIGHTS[grant.right]}"
    if len(chain) > 1:
        yield "passed on by " + ", then ".join(link.sub for link in chain[:-1])
    yield f"granted by the key {grant.iss}"
    if grant.depth:
        yield f"may be passed on, never widened, {grant.depth} deep"
    others = sorted({key for bounds in grant.operations.values() for key in bounds.counterparties or ()})
    if others:
        yield "may also ask or receive: " + ", ".join(others)


def _of_what(grant: Grant) -> Iterator[str]:
    asset = grant.asset
    version = "any version" if asset.version is None else f"version {asset.version}"
    yield f"the dataset {asset.id} ({version}) at {grant.aud}; class {asset.classification}, grade {asset.grade}"
    if asset.personal:
        consent = "no consent is named" if grant.consent is None else f"the consent is {grant.consent}"
        yield f"it holds data of persons; {consent}"


def _operation(name: str, bounds: Bounds) -> str:
    said = [name]
    if bounds.columns is not None:
        said.append(f"on {', '.join(bounds.columns)} only")
    if bounds.predicates is not None:
        said.append("to check: " + "; ".join(bounds.predicates))
    if bounds.min_rows is not None:
        said.append(f"with at least {bounds.min_rows:,} keys brought")
    if bounds.max_rows is not None:
        said.append(f"with at most {bounds.max_rows:,} keys brought")
    if bounds.min_group is not None:
        said.append(f"by groups of at least {bounds.min_group:,}")
    if bounds.similar is not None:
        said.append(
            f"with at most {bounds.similar.runs:,} sets that differ from an earlier one by"
            f" {bounds.similar.keys:,} keys or fewer"
        )
    return ", ".join(said)


def _what_for(grant: Grant) -> Iterator[str]:
    yield ", ".join(grant.purposes)
    if grant.scenarios is not None:
        yield f"in the scenarios {', '.join(grant.scenarios)}"
    yield "anywhere" if grant.territory is None else f"in {', '.join(grant.territory)}"


def _how_much(grant: Grant) -> Iterator[str]:
    for unit, limit in sorted(grant.limits.items()):
        spans = [f"{_amount(unit, bound)} {words}" for words, bound in _bounds(limit)]
        if spans:
            yield ", ".join(spans)


def _bounds(limit: Limit) -> Iterator[tuple[str, int]]:
    for span, words in _SPANS.items():
        bound = getattr(limit, span)
        if bound is not None:
            yield words, bound


def _amount(unit: str, amount: int) -> str:
    if unit not in _SMALL:
        return f"{amount:,} {unit}"
    symbol, digits = _SMALL[unit]
    return f"{symbol} = {(Decimal(amount).scaleb(-digits)).normalize():f}"


def _price(grant: Grant) -> Iterator[str]:
    price = grant.price
    if price.currency is None:
        yield "free; use is counted all the same"
        return
    yield f"{price.per_call} a job and {price.per_row} a key, in minor units of {price.currency}"
    window = {"grant": "its life", "month": "a month", "year": "a year", None: ""}[price.window]
    if price.free_for is not None:
        yield f"free for {', '.join(price.free_for)}"
    if price.free_calls is not None or price.free_rows is not None:
        yield f"the first {price.free_calls or 0:,} jobs and {price.free_rows or 0:,} keys in {window} are free"
    for tier in price.tiers or ():
        upto = "beyond that" if tier.upto is None else f"up to {tier.upto:,} {price.unit} in {window}"
        yield f"{upto}, {tier.rate} each on top"
    if price.fee is not None:
        yield f"{price.fee} for every year that begins"
    if price.rate is not None:
        yield f"{price.rate} of the revenue that it declares"
    yield "paid by " + (grant.sub if grant.payer is None else f"{grant.sub}, or by the key {grant.payer}")
    if grant.split:
        yield "shared: " + ", ".join(f"{share.party} {share.share}" for share in grant.split)


def _when(grant: Grant) -> Iterator[str]:
    yield f"from {_day(grant.nbf)} to {_day(grant.exp)}"
    if grant.review is not None:
        yield f"to be reviewed by {_day(grant.review)}, or it cannot be used"


def _day(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%d %H:%M UTC")
