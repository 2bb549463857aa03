"""A small world to test the broker in: a bureau with companies, a bank that asks, a clock that waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.broker.postgresql import Server, server, why_not
from trustcompute.broker import request as requests
from trustcompute.broker.broker import Broker, Explanation
from trustcompute.broker.grant import AssetClaim, Grant, Limit, PricePlan, Share, hash_of, new_grant
from trustcompute.broker.job import JobRecord, Release
from trustcompute.broker.order import new_order
from trustcompute.broker.policy import Asset
from trustcompute.broker.request import Request, VerifiedRequest
from trustcompute.broker.rules import DenyList, Policy
from trustcompute.errors import ParameterError
from trustcompute.primitives.identity import CertificateAuthority, Identity
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.operation import Leakage, Operation, OutputForm, Params, Sizes, Usage

NOON = 1_750_000_000 // 86400 * 86400 + 43200  # noon of a day, UTC
SCHEMA = "5c" * 32
PLAN = "00" * 32

AUTHORITY = CertificateAuthority.create("Test authority")
BUREAU = AUTHORITY.issue("bureau.example")
BANK = AUTHORITY.issue("bank.example")


def _check(params: Params, sizes: Sizes) -> dict[str, Any]:
    unknown = set(params) - {"on", "output", "min_group"}
    if unknown:
        raise ParameterError(f"unknown parameter {sorted(unknown)[0]}")
    return {"on": ["code"], "output": "rows"} | dict(params)


def _output(params: Params) -> OutputForm:
    return OutputForm.COUNT if params["output"] == "count" else OutputForm.MATCHED_IDS


def _bound(params: Params, sizes: Sizes) -> Usage:
    return Usage(calls=1, rows=sizes.consumer, bytes=32 * (sizes.consumer + sizes.provider))


MATCH = Operation(
    "psi.test.v1", _check, _output, _bound, lambda _: Leakage("matches", "sizes"), "receiver", "sender"
)


@dataclass
class FakeClock:
    time: int = NOON

    def now(self) -> int:
        return self.time


@dataclass
class World:
    """Everything a test needs to get from a grant to a receipt; keyword arguments override claims."""

    directory: Path
    clock: FakeClock = field(default_factory=FakeClock)
    bureau: Identity = BUREAU
    bank: Identity = BANK
    operation: Operation = MATCH
    opened: list[Broker] = field(default_factory=list)
    orders: int = 0
    database: str | None = None  # where the book is, if not in the directory

    def open(self, **options: Any) -> Broker:
        broker = Broker.open(
            self.directory, self.bureau, **{"clock": self.clock, "database": self.database} | options
        )
        self.opened.append(broker)
        return broker

    def broker(self, **asset: Any) -> Broker:
        """An open broker that offers the dataset."""
        broker = self.open()
        broker.register(self.asset(**asset))
        return broker

    def asset(self, **changes: Any) -> Asset:
        terms: dict[str, Any] = {
            "id": "companies",
            "version": "2025-06",
            "schema_hash": SCHEMA,
            "classification": "enterprise",
            "grade": "important",
            "personal": False,
            "rows": 5000,
        }
        return Asset(**terms | changes)

    def claims(self, **changes: Any) -> Grant:
        terms: dict[str, Any] = {
            "issuer": self.bureau.thumbprint,
            "audience": self.bureau.name,
            "subject": self.bank.name,
            "subject_key": self.bank.thumbprint,
            "asset": AssetClaim(
                id="companies",
                schema_hash=SCHEMA,
                classification="enterprise",
                grade="important",
                personal=False,
            ),
            "operations": [MATCH.id],
            "purposes": ["credit"],
            "outputs": [OutputForm.MATCHED_IDS],
            "contingency": PLAN,
            "now": self.clock.time,
            "limits": {"calls": Limit(total=10, per_day=5), "rows": Limit(total=5000, per_call=1000)},
            "price": PricePlan(kind="per_use", currency="CNY", per_call="100", per_row="1/3"),
            "split": [
                Share(party=self.bureau.thumbprint, share="2/3"),
                Share(party="public-fund", share="1/3"),
            ],
        }
        return new_grant(**terms | changes)

    def request(self, grant: str, *, key: SigningKey | None = None, **changes: Any) -> Request:
        terms: dict[str, Any] = {
            "grant": grant,
            "operation": MATCH.id,
            "dataset": "companies",
            "params": {},
            "rows": 100,
            "purpose": "credit",
            "audience": self.bureau.name,
            "san": self.bank.name,
            "key": (key or self.bank.key).public,
            "now": self.clock.time,
        }
        return requests.new_request(**terms | changes)

    def verified(self, broker: Broker, grant: str, **changes: Any) -> VerifiedRequest:
        token = self.request(grant, **changes).sign(self.bank.key)
        return broker.verify_request(token, peer=self.bank.name, grant=grant)

    def denylist(self, *, version: int, key: SigningKey | None = None, **denied: Any) -> str:
        return self._rules(DenyList, version, key, denied)

    def policy(self, *, version: int, key: SigningKey | None = None, **terms: Any) -> str:
        return self._rules(Policy, version, key, terms)

    def _rules(self, kind: Any, version: int, key: SigningKey | None, terms: Mapping[str, Any]) -> str:
        signer = key or self.bureau.key
        claims = {
            "iss": signer.thumbprint,
            "aud": self.bureau.name,
            "version": version,
            "iat": self.clock.time,
        }
        return str(kind(**claims, **terms).sign(signer))

    def order(self, do: Any, grant: str, *, key: SigningKey | None = None, **more: Any) -> str:
        """The next order; its number is the clock's and a counter, so that each is newer than the last."""
        self.orders += 1
        terms = {"audience": self.bureau.name, "number": self.clock.time * 1000 + self.orders}
        return new_order(do, hash_of(grant), key=key or self.bureau.key, **terms | more)

    @staticmethod
    def explained(broker: Broker, verified: VerifiedRequest) -> Explanation:
        return broker.explain(verified.grant, verified.claims, MATCH)

    def explain(self, broker: Broker, grant: str, **changes: Any) -> Explanation:
        return self.explained(broker, self.verified(broker, grant, **changes))

    def posted(self, broker: Broker, grant: str, **changes: Any) -> JobRecord:
        """A job from request to charge, for all it reserved."""
        job = broker.reserve(self.verified(broker, grant, **changes), self.operation)
        broker.arm(job.id)
        return broker.post(job.id, release=self.release(job.id), usage=job.reserved)

    def countersigned(self, request: str, record: JobRecord) -> str:
        answers = [each.frames_hash for each in record.releases]
        return requests.countersign(
            job=record.id, request=request, answers=answers, key=self.bank.key, now=self.clock.time
        )

    @staticmethod
    def release(job: str, run: int = 0, turn: int = 1, content: str = "aa") -> Release:
        return Release(run, turn, content * 32, "bb" * 32, f"{job}-{run}-{turn}")

    @staticmethod
    def balances(broker: Broker) -> Mapping[tuple[str, str], tuple[int, int]]:
        """(posted, pending) for all time, by (kind of account, unit)."""
        with broker._writer.view() as (reader, _):
            held = reader.all_balances()
        return {
            (key.account.partition(":")[0], key.unit): (balance.posted, balance.pending)
            for key, balance in held.items()
            if key.window == -1
        }


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Tests of a module that says so run on both stores."""
    if "world" in metafunc.fixturenames and getattr(metafunc.module, "BOTH_STORES", False):
        metafunc.parametrize("world", ["sqlite", "postgres"], indirect=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """A server of this session's own; the tests that want it are skipped where none can be started."""
    if missing := why_not():
        pytest.skip(missing)
    with server() as started:
        yield started


@pytest.fixture
def world(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[World]:
    made = World(tmp_path / "book")
    if getattr(request, "param", "sqlite") == "postgres":
        made.database = request.getfixturevalue("postgres").new_schema()
    yield made
    for broker in made.opened:
        with suppress(Exception):
            broker.close()
