"""Credit events: they lower what a party may reserve, a repair restores just that, and the audit knows."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.broker import credit, delegation
from trustcompute.broker.audit import audit_book
from trustcompute.broker.credit import Ceiling
from trustcompute.broker.grant import Limit
from trustcompute.broker.job import JobState
from trustcompute.broker.notice import Notice
from trustcompute.errors import AuditError, Conflict, GrantError, ParameterError, Refused
from trustcompute.primitives.signing import SigningKey, token_hash

BOTH_STORES = True
DAY = 86400


def lower(world: Any, broker: Any, party: str = "", **ceiling: Any) -> str:
    """Returns the event's hash."""
    world.orders += 1
    token = credit.lower(
        party or world.bank.thumbprint,
        Ceiling(**ceiling),
        reason="two fees unpaid",
        audience=world.bureau.name,
        key=world.bureau.key,
        number=world.clock.time * 1000 + world.orders,
    )
    broker.credit(token)
    return token_hash(token)


def repair(world: Any, broker: Any, event: str, party: str = "", **terms: Any) -> None:
    world.orders += 1
    more = {"audience": world.bureau.name, "key": world.bureau.key} | terms
    number = world.clock.time * 1000 + world.orders
    broker.credit(credit.repair(party or world.bank.thumbprint, event, reason="paid", number=number, **more))


def refused(world: Any, broker: Any, grant: str, **request: Any) -> Refused:
    with pytest.raises(Refused) as caught:
        broker.reserve(world.verified(broker, grant, **request), world.operation)
    return caught.value


def test_a_party_is_barred_until_its_repair_and_the_log_says_so(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    event = lower(world, broker, bar=True)
    error = refused(world, broker, grant)
    assert (error.rule, error.field, error.owner) == ("credit", "grant", "bureau.example")
    assert "repair" in error.fix
    denied = broker.entries()[-1].fields
    assert denied["versions"][f"credit/{world.bank.thumbprint}"].endswith(event)
    entry = next(each for each in broker.entries() if each.type == "credit.lowered")
    assert entry.fields["ceiling"] == {"bar": True} and "unpaid" not in str(entry.fields)
    [kept] = broker.evidence(event)
    assert kept.kind == "credit"
    [held] = broker.credits()
    assert (held.party, [each.event for each in held.events]) == (world.bank.thumbprint, [event])
    broker.close()
    broker = world.open()
    assert refused(world, broker, grant).rule == "credit"
    repair(world, broker, event)
    assert broker.credits() == []
    world.posted(broker, grant)
    assert broker.audit().entries["credit.repaired"] == 1


def test_limits_of_grants_are_lowered_and_restored(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())  # 10 calls, 5 a day; 5000 rows, 1000 a job
    world.posted(broker, grant, rows=100)
    half = lower(world, broker, percent=50)
    found = world.explain(broker, grant)
    assert found.allowed
    assert found.quote.left == {
        "calls": {"total": 4, "per_day": 1},
        "rows": {"total": 2400, "per_call": 500},
    }
    error = refused(world, broker, grant, rows=501)
    assert (error.rule, error.field) == ("credit", "limits.rows.per_call") and "leaves 500 rows" in error.fix
    few = lower(world, broker, limits={"rows": Limit(per_call=200), "bytes": Limit(total=1)})
    assert {each.field for each in world.explain(broker, grant, rows=201).reasons} == {
        "limits.rows.per_call",
        "limits.bytes.total",  # which the grant does not limit
    }
    repair(world, broker, few)
    world.posted(broker, grant, rows=500)
    assert refused(world, broker, grant).field == "limits.calls.per_day"
    repair(world, broker, half)
    world.posted(broker, grant, rows=1000)
    assert refused(world, broker, grant, rows=1001).rule == "quota"  # the grant's own: no event is to blame
    broker.audit()


def test_what_is_open_runs_to_its_end(world: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    job = broker.reserve(world.verified(broker, grant), world.operation)
    lower(world, broker, bar=True)
    broker.arm(job.id)
    done = broker.post(job.id, release=world.release(job.id), usage=job.reserved)
    assert done.state is JobState.POSTED
    broker.audit()


def test_lowering_a_party_binds_what_it_has_passed_on(world: Any) -> None:
    broker = world.broker()
    middle = SigningKey.generate()
    root = broker.issue(world.claims(subject="hq.example", subject_key=middle.thumbprint, depth=1))
    child = delegation.delegate(
        root,
        issuer=middle.public,
        subject="bank.example",
        subject_key=world.bank.thumbprint,
        now=world.clock.time,
    )
    chain = delegation.extend(root, child, middle)
    event = lower(world, broker, middle.thumbprint, limits={"calls": Limit(total=1)})
    world.posted(broker, chain)
    assert refused(world, broker, chain).field == "limits.calls.total"
    repair(world, broker, event, middle.thumbprint)
    lower(world, broker, middle.thumbprint, bar=True)
    assert refused(world, broker, chain).rule == "credit"
    world.posted(broker, broker.issue(world.claims()))  # a grant that hq has nothing to do with
    broker.audit()


def test_events_that_are_not_the_operators_or_not_new_change_nothing(world: Any) -> None:
    broker = world.broker()
    stranger, party = SigningKey.generate(), world.bank.thumbprint
    first = credit.lower(
        party,
        Ceiling(bar=True),
        reason="r",
        audience=world.bureau.name,
        key=world.bureau.key,
        number=world.clock.time * 1000,
    )
    broker.credit(first)
    size = len(broker.entries())
    broker.credit(first)
    own = {"reason": "r", "audience": world.bureau.name, "key": world.bureau.key}
    now = world.clock.time * 1000 + 5
    for token, field in (
        (credit.lower(party, Ceiling(percent=1), **own | {"key": stranger}, number=now), "iss"),
        (credit.lower(party, Ceiling(percent=1), **own | {"audience": "x.example"}, number=now), "aud"),
        (credit.lower(party, Ceiling(percent=1), **own, number=now - 5), "number"),
        (credit.lower(party, Ceiling(percent=1), **own, number=now - 10**9), "number"),
        (credit.lower(party, Ceiling(), **own, number=now), "ceiling"),
        (credit.lower(party, Ceiling(percent=1), **own, number=now)[:-4] + "AAAA", "signature"),
    ):
        with pytest.raises(GrantError) as caught:
            broker.credit(token)
        assert caught.value.field == field
    with pytest.raises(Conflict, match="no such open event"):
        repair(world, broker, "00" * 32)
    repair(world, broker, token_hash(first))
    with pytest.raises(Conflict):
        repair(world, broker, token_hash(first))
    with pytest.raises(GrantError, match="newer event"):  # nobody brings an old one back
        broker.credit(first)
    assert len(broker.entries()) == size + 1
    with pytest.raises(ParameterError, match="reason"):
        credit.lower(party, Ceiling(bar=True), **own | {"reason": ""})


def test_the_audit_finds_a_charge_that_an_event_forbade(world: Any, monkeypatch: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    event = lower(world, broker, limits={"rows": Limit(per_call=50)})
    world.clock.time += DAY
    monkeypatch.setattr(credit.Standings, "accounts", lambda self, accounts, grantees: accounts)
    world.posted(broker, grant, rows=100)  # by a broker that looks away
    with pytest.raises(AuditError, match="credit event left of rows"):
        broker.audit()
    assert event


def test_the_audit_finds_a_party_that_was_barred(world: Any, monkeypatch: Any) -> None:
    broker = world.broker()
    grant = broker.issue(world.claims())
    lower(world, broker, bar=True)
    world.clock.time += DAY
    monkeypatch.setattr(credit.Standings, "barred", lambda self, named: iter(()))
    world.posted(broker, grant)
    with pytest.raises(AuditError, match="barred"):
        broker.audit()


def test_the_audit_finds_events_that_the_book_has_otherwise(world: Any) -> None:
    broker = world.broker()
    lower(world, broker, percent=10)
    with broker._writer.view() as (reader, _):

        class Altered:
            def __getattr__(self, name: str) -> Any:
                return getattr(reader, name)

            def notices(self, names: Any) -> dict[str, Notice]:
                return {
                    name: Notice(
                        each.name,
                        each.state,
                        each.version,
                        each.hash,
                        each.token.replace("10", "90"),
                        each.entry,
                    )
                    for name, each in reader.notices(names).items()
                }

        with pytest.raises(AuditError, match="open credit events"):
            audit_book(Altered(), broker.log_key)  # type: ignore[arg-type]


ceilings = st.builds(
    Ceiling,
    bar=st.booleans(),
    percent=st.none() | st.integers(0, 99),
    limits=st.dictionaries(
        st.sampled_from(["calls", "rows"]),
        st.builds(
            Limit,
            total=st.none() | st.integers(0, 100),
            per_call=st.none() | st.integers(0, 100),
            per_day=st.none() | st.integers(0, 100),
        ),
        max_size=2,
    ),
).filter(lambda each: not each.empty)


class Shelf:
    """What ``credit.Enter`` asks of a book."""

    def __init__(self) -> None:
        self.notices: dict[str, Notice] = {}
        self.kinds: list[str] = []

    def notice(self, name: str) -> Notice | None:
        return self.notices.get(name)

    def put_notice(self, notice: Notice) -> None:
        self.notices[notice.name] = notice

    def keep(self, evidence: Any) -> None:
        assert evidence.kind == "credit"

    def record(self, kind: str, fields: Any, concealed: Any) -> int:
        self.kinds.append(kind)
        return len(self.kinds)


@pytest.mark.property
@settings(max_examples=60, deadline=None)
@given(steps=st.lists(ceilings | st.integers(0, 8), max_size=12), data=st.data())
def test_any_sequence_leaves_the_ceilings_of_what_is_open(steps: list[Any], data: st.DataObject) -> None:
    shelf, party, opened = Shelf(), "p" * 43, {}
    for number, step in enumerate(steps, start=1):
        hash_ = f"{number:064x}"
        terms: dict[str, Any] = {"iss": "o" * 43, "aud": "x.example", "party": party, "reason": "r"}
        if isinstance(step, Ceiling):
            event = credit.Event(**terms, do="lower", number=number, ceiling=step)
            opened[hash_] = step
        elif opened:
            repaired = sorted(opened)[step % len(opened)]
            event = credit.Event(**terms, do="repair", number=number, event=repaired)
            del opened[repaired]
        else:
            continue
        book: Any = shelf
        credit.Enter(event, "token", hash_).apply(book)
    standings = credit.Standings(shelf.notice, [party])
    held = standings.credits[party].ceilings if opened else ()
    assert held == tuple(opened.values()) and bool(standings.credits) == bool(opened)
    assert bool(list(standings.barred([("grant", party)]))) == any(each.bar for each in opened.values())
    own = {"calls": Limit(total=77, per_day=9)}
    shuffled = data.draw(st.permutations(list(opened.values())))
    least = credit.least(own, held)
    assert least == credit.least(own, shuffled)
    if not opened:
        assert least == own
    for unit, span in (("calls", "total"), ("calls", "per_day"), ("rows", "per_call")):
        start = getattr(own.get(unit, Limit()), span)
        bounds = [] if start is None else [start]
        for each in opened.values():
            if each.percent is not None and start is not None:
                bounds.append(start * each.percent // 100)
            most = getattr(each.limits.get(unit, Limit()), span)
            bounds += [] if most is None else [most]
        assert getattr(least.get(unit, Limit()), span) == min(bounds, default=None)
