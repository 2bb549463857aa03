"""Presets, and the page that says what a grant lets whom see."""

from __future__ import annotations

from typing import Any

import pytest

from trustcompute.broker import delegation
from trustcompute.broker import grant as grants
from trustcompute.broker.describe import describe
from trustcompute.broker.grant import AssetClaim, Bounds, Grant, Limit
from trustcompute.broker.presets import PRESETS
from trustcompute.errors import ParameterError
from trustcompute.node.computation import COMPUTATIONS
from trustcompute.protocol.operation import OutputForm


def terms(world: Any, **changes: Any) -> dict[str, Any]:
    return {
        "issuer": world.bureau.thumbprint,
        "audience": world.bureau.name,
        "subject": world.bank.name,
        "subject_key": world.bank.thumbprint,
        "asset": AssetClaim(id="companies", classification="enterprise", grade="important", personal=False),
        "purposes": ["credit"],
        "contingency": "0" * 64,
        "now": world.clock.time,
    } | changes


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_grant_of_operations_that_exist(world: Any, name: str) -> None:
    broker = world.broker()
    made = Grant.preset(name, **terms(world))
    assert set(made.operations) <= {one.operation.id for one in COMPUTATIONS}
    assert made.exp - made.nbf == 90 * 86400 and made.limits["calls"].total
    assert broker.verify(broker.issue(made)).claims == made
    page = made.describe()
    assert page.startswith("What this grant lets bank.example see") and len(page.splitlines()) < 60


def test_a_presets_terms_can_be_changed_and_unknown_names_are_said(world: Any) -> None:
    made = Grant.preset(
        "match-count", **terms(world, days=3, limits={"calls": Limit(total=1)}, review=world.clock.time + 9)
    )
    assert (made.exp - made.nbf, made.limits["calls"].total) == (3 * 86400, 1)
    with pytest.raises(ParameterError, match="match-count, match-rows"):
        Grant.preset("everything", **terms(world))
    with pytest.raises(ParameterError, match="purposes"):
        Grant.preset("lookup", **terms(world, purposes=[]))


def test_the_page_says_everything_that_the_grant_says(world: Any) -> None:
    made = world.claims(
        asset=AssetClaim(
            id="patients", version="v7", classification="health", grade="important", personal=True
        ),
        operations={
            "dp.release.v1": Bounds(columns=("age", "ward"), min_group=12, counterparties=("c" * 43,))
        },
        outputs=[OutputForm.DP_RELEASE],
        purposes=["research"],
        scenarios=["cohort"],
        territory=["EU"],
        limits={"rho": Limit(total=1_500_000_000_000), "calls": Limit(per_day=3)},
        consent="register/2025/17",
        review=world.clock.time + 86400,
        depth=2,
        payer=world.bureau.thumbprint,
    )
    page = made.describe()
    for words in (
        "bank.example",
        world.bank.thumbprint,
        world.bureau.thumbprint,
        "patients (version v7)",
        "data of persons",
        "register/2025/17",
        "noise",
        "never a row",
        "age, ward only",
        "groups of at least 12",
        "c" * 43,
        "research",
        "cohort",
        "in EU",
        "ρ = 1.5 in all",
        "3 calls a day",
        "100 a job and 1/3 a key",
        "public-fund 1/3",
        "to be reviewed by",
        "2 deep",
        made.contingency,
        "suspend or revoke",
    ):
        assert words in page, words


def test_a_chains_page_names_who_passed_it_on(world: Any) -> None:
    root = grants.sign(
        world.claims(depth=1, subject="hq.example", subject_key=world.bureau.thumbprint), world.bureau.key
    )
    child = delegation.delegate(
        root,
        issuer=world.bureau.key.public,
        subject="bank.example",
        subject_key=world.bank.thumbprint,
        now=world.clock.time,
        purposes=("credit",),
        limits={"rows": Limit(total=10)},
    )
    page = describe(delegation.read_chain(delegation.extend(root, child, world.bureau.key)))
    assert "passed on by hq.example" in page and "10 rows in all" in page and "10 calls in all" in page
