"""One metered computation from the consumer's side: results, receipts, refusals, retries."""

from __future__ import annotations

import pytest
from world import AIRLINE, FLIGHTS, MATCHED, PLANES, REGISTRY, RIVAL, THREE_TURNS

from trustcompute.broker import request as requests
from trustcompute.broker.grant import AssetClaim, Bounds, Limit, hash_of
from trustcompute.broker.receipt import Receipt
from trustcompute.errors import (
    Conflict,
    GrantError,
    JobInterrupted,
    ParameterError,
    Refused,
    RemoteProtocolError,
    TableError,
    VerificationError,
)
from trustcompute.node.documents import CatalogRequest, JobRequest, Opening, QuoteRequest, TurnDescriptor
from trustcompute.primitives import canonical
from trustcompute.primitives.checkpoint import NoteKey
from trustcompute.protocol.operation import OutputForm


def test_a_metered_intersection_has_result_receipt_cost_and_leakage(world):
    found = world.intersect()
    assert found.left_rows.tolist() == MATCHED
    assert found.count == 3
    assert found.table() == FLIGHTS.take(MATCHED)
    assert "which of its own keys" in found.leakage.consumer
    assert found.cost.turns == 1
    entry = found.receipt.verify(world.broker.log_key)
    assert (entry.type, entry.fields["job"], entry.fields["usage"]["calls"]) == ("job.posted", found.job, 1)
    assert world.types()[-2:] == ["job.posted", "job.countersigned"]
    assert world.used() == 1
    world.check()


@pytest.mark.parametrize("reveal", ["consumer", "provider", "both"])
@pytest.mark.parametrize(
    ("protocol", "output"), [("psi.ecdh.v1", "rows"), ("psi.ecdh.v1", "count"), ("psi.dh.v1", "rows")]
)
def test_who_learns_what_over_a_node(world, protocol, output, reveal):
    found = world.intersect(output=output, reveal=reveal, protocol=protocol)
    assert found.protocol == protocol
    assert found.count == (None if reveal == "provider" else 3)
    assert (found.left_rows is not None) == (output == "rows" and reveal != "provider")
    assert len(world.results) == (reveal != "consumer")
    if reveal != "consumer":
        told = world.results[0]
        assert (told.consumer, told.dataset, told.output.count) == ("airline.example", "planes", 3)
        if output == "rows":
            assert PLANES.take(told.output.rows).column("tailnum").to_pylist() == ["N1", "N7", "N39", "N1"]
    assert world.used() == 1
    assert found.receipt.verify(world.broker.log_key).type == "job.posted"
    world.check()


def test_a_lookup_needs_a_dataset_that_offers_them(world):
    with pytest.raises(ParameterError, match="offers no lookups"):
        world.session().lookup("planes", FLIGHTS, on={"tail": "tailnum"})


def test_several_key_columns(world):
    table = {"t": ["N1", "N1", "N2"], "s": [1, 2, 2]}
    found = world.session().intersect("planes", table, on={"t": "tailnum", "s": "seats"})
    assert found.left_rows.tolist() == [0, 2]


@pytest.mark.parametrize("table", [{"tail": ["none", "such"]}, {"tail": [None, None]}, FLIGHTS.slice(0, 0)])
def test_an_empty_result_is_a_result(world, table):
    found = world.session().intersect("planes", table, on={"tail": "tailnum"})
    assert found.left_rows.tolist() == []
    assert found.count == 0


def test_the_catalogue_shows_names_and_counts_and_no_values(world):
    catalog = world.session().catalog()
    entry = catalog.datasets[0]
    assert (entry.id, entry.version, [column.name for column in entry.columns]) == (
        "planes",
        "2013",
        ["tailnum", "seats"],
    )
    assert [(choice.columns, choice.distinct) for choice in entry.keys] == [
        (["tailnum"], 40),
        (["tailnum", "seats"], 41),
    ]
    assert "N1" not in entry.encode().decode()


def test_a_quote_is_exact_and_spends_nothing(world):
    quote = world.session().quote("psi.ecdh.v1", "planes", rows=4)
    assert str(quote.amount) == "34/3"
    assert (quote.currency, quote.left["calls"]) == ("USD", {"total": "10"})
    assert world.used() == 0
    world.intersect()
    statement = world.broker.statement(0, world.clock.now() + 1)
    assert sum(row.rated for row in statement.rows) == quote.amount
    assert sum(line.amount + line.residual for line in statement.lines) == quote.amount


def test_a_receipt_verifies_offline_from_its_files_alone(world, tmp_path):
    found = world.intersect(world.session(state=tmp_path / "jobs"))
    receipt = Receipt.load(tmp_path / "jobs" / f"{found.job}.receipt.json")
    key = NoteKey.parse((tmp_path / "jobs" / f"{found.job}.log-key").read_text())
    entry = receipt.verify(key)
    assert entry.fields["frames"] and entry.fields["transcript"]
    raw = (tmp_path / "jobs" / f"{found.job}.receipt.json").read_bytes()
    for position in range(0, len(raw), 7):
        spoiled = raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :]
        with pytest.raises(VerificationError):
            Receipt.from_json(spoiled).verify(key)
    assert not list((tmp_path / "jobs").glob("*.job.json")), "the secrets are forgotten"


@pytest.mark.parametrize("reveal", ["consumer", "provider", "both"])
@pytest.mark.parametrize("protocol", ["auto", "psi.ecdh.v1", "psi.vole.v1"])
def test_the_request_names_the_protocol(world, protocol, reveal):
    grant = world.issue(operations={"psi.ecdh.v1": Bounds(), "psi.vole.v1": Bounds()})
    session = world.session(grant=grant)
    found = world.intersect(session, protocol=protocol, reveal=reveal)
    expected = "psi.ecdh.v1" if protocol == "auto" else protocol  # these tables are small
    assert found.protocol == expected
    assert found.receipt.verify(session.log_key).fields["operation"] == expected
    assert (found.left_rows is None) == (reveal == "provider")
    if reveal != "provider":
        assert found.left_rows.tolist() == MATCHED


def test_a_protocol_the_grant_does_not_name_is_refused(world):
    with pytest.raises(Refused) as caught:
        world.intersect(protocol="psi.vole.v1")
    assert (caught.value.rule, caught.value.field) == ("operation", "op")


REFUSALS = [
    ({"operations": {"psi.other.v1": Bounds()}}, {}, "operation"),
    ({"purposes": ["a", "b"]}, {"purpose": "c"}, "purpose"),
    ({"scenarios": ["on site"]}, {"scenario": "at home"}, "scenario"),
    ({"outputs": [OutputForm.COUNT]}, {}, "output"),
    ({"operations": {"psi.ecdh.v1": Bounds(columns=("seats",))}}, {}, "columns"),
    ({"operations": {"psi.ecdh.v1": Bounds(max_rows=3)}}, {}, "max_rows"),
    ({"operations": {"psi.ecdh.v1": Bounds(min_rows=5)}}, {}, "min_rows"),
    ({"limits": {"rows": Limit(total=3)}}, {}, "quota"),
    ({"limits": {"bytes": Limit(per_call=3)}}, {}, "quota"),
    ({"limits": {"calls": Limit(per_day=0)}}, {}, "quota"),
    ({"right": "hold"}, {}, "right"),
    (
        {
            "asset": AssetClaim(
                id="planes", version="2012", classification="general", grade="general", personal=False
            )
        },
        {},
        "asset.version",
    ),
]


@pytest.mark.parametrize(("claims", "options", "rule"), REFUSALS)
def test_a_refusal_names_rule_field_owner_and_fix_and_spends_nothing(world, claims, options, rule):
    grant = world.issue(**claims)
    with pytest.raises(Refused) as refused:
        world.intersect(world.session(grant=grant), **options)
    assert refused.value.rule == rule
    assert refused.value.field and refused.value.owner and refused.value.fix
    assert world.types()[-1] == "job.denied"
    assert world.check().balances == {}


def test_a_spent_quota_refuses_and_says_what_is_left(world):
    grant = world.issue(limits={"calls": Limit(total=2)})
    for _ in range(2):
        world.intersect(world.session(grant=grant))
    with pytest.raises(Refused, match="0 are left") as refused:
        world.intersect(world.session(grant=grant))
    assert refused.value.rule == "quota"
    world.check()


def test_an_expired_grant_is_refused_and_one_not_yet_valid(world):
    grant = world.issue(days=1)
    world.clock.advance(2 * 86400)
    session = world.session(grant=grant)
    with pytest.raises((Refused, GrantError)):
        world.intersect(session)
    assert "job.posted" not in world.types()


def test_a_revoked_grant_is_refused(world):
    session = world.session()
    world.intersect(session)
    world.broker.revoke(hash_of(world.grant), "test")
    with pytest.raises(Refused, match="revoked"):
        world.intersect(session)
    world.check()


def test_revocation_before_the_charge_releases_nothing(world):
    """The grant is revoked after the job was armed: the fresh look at the charge stops the answer."""
    session = world.session()
    original = world.broker.arm

    def arm_then_revoke(job):
        record = original(job)
        world.broker.revoke(hash_of(world.grant), "test")
        return record

    world.broker.arm = arm_then_revoke
    with pytest.raises(Refused, match="revoked"):
        world.intersect(session)
    assert world.types()[-1] == "job.forfeited"
    world.broker.sweep()
    assert world.broker.outbox.names() == set()
    world.check()


def test_a_provider_is_told_its_part_only_after_the_charge(world):
    original = world.broker.arm

    def arm_then_revoke(job):
        record = original(job)
        world.broker.revoke(hash_of(world.grant), "test")
        return record

    world.broker.arm = arm_then_revoke
    with pytest.raises(Refused, match="revoked"):
        world.intersect(reveal="provider")
    assert world.results == []


def test_a_grant_that_is_revoked_or_over_is_shown_nothing(world):
    session = world.session()
    session.catalog()
    world.clock.advance(400 * 86400)
    with pytest.raises(Refused, match="ended"):
        session.catalog()
    world.clock.advance(-400 * 86400)
    world.broker.revoke(hash_of(world.grant), "test")
    for call in (session.catalog, lambda: session.quote("psi.ecdh.v1", "planes", rows=1)):
        with pytest.raises(Refused, match="revoked"):
            call()


def test_a_grant_not_yet_in_force_is_refused(world):
    later = world.claims().model_copy(update={"nbf": world.clock.now() + 3600})
    from trustcompute.broker import grant as grants

    with pytest.raises(Refused, match="not in force before"):
        world.session(grant=grants.sign(later, REGISTRY.key)).catalog()


def test_a_quote_tells_nothing_of_datasets_the_grant_is_not_for(world):
    grant = world.issue(
        asset=AssetClaim(id="other", classification="general", grade="general", personal=False)
    )
    body = QuoteRequest(grant=grant, operation="psi.ecdh.v1", dataset="planes", params={}, rows=1)
    for dataset in ("planes", "other", "none"):
        with pytest.raises(ParameterError, match="no such dataset for this grant"):
            world.channel().action("quote", body.model_copy(update={"dataset": dataset}).encode())


def test_a_receipt_for_another_conversation_is_refused(world, monkeypatch):
    from trustcompute.node import client

    real = client.usage_document
    monkeypatch.setattr(client, "usage_document", lambda usage: real(usage) | {"calls": 2})
    with pytest.raises(VerificationError, match="usage differ"):
        world.intersect()


def test_a_peer_cannot_make_the_log_grow(world, tmp_path):
    state = tmp_path / "jobs"
    with pytest.raises(JobInterrupted) as interrupted:
        world.intersect(world.session(plan=dict.fromkeys(range(9), "lose answer"), state=state))
    for _ in range(5):
        with pytest.raises(RemoteProtocolError):
            world.intersect(world.session(plan={0: "flip request"}, state=state), job=interrupted.value.job)
    assert world.types().count("incident") == 1
    assert sum(world.broker.failures().values()) == 4


def altered(token, position):
    return token[:position] + ("A" if token[position] != "A" else "B") + token[position + 1 :]


def test_altered_foreign_and_reused_grants_are_refused(world):
    session = world.session()

    def body(grant):
        return CatalogRequest(grant=grant).encode()

    for position in (5, len(world.grant) // 2, len(world.grant) - 3):
        with pytest.raises(GrantError):
            session.channel.action("catalog", body(altered(world.grant, position)))
    foreign = world.claims(subject=RIVAL)
    with pytest.raises(GrantError) as refused:
        session.channel.action("catalog", body(world.issue(subject=RIVAL)))
    assert refused.value.field == "sub"
    with pytest.raises(GrantError) as refused:
        from trustcompute.broker import grant as grants

        session.channel.action(
            "catalog", body(grants.sign(foreign.model_copy(update={"iss": RIVAL.thumbprint}), RIVAL.key))
        )
    assert refused.value.field == "iss"
    assert sum(world.broker.failures().values()) == 5
    assert world.types() == ["log.opened", "asset.registered"]


def test_a_grant_stolen_by_another_peer_is_useless(world):
    thief = world.session(identity=RIVAL)
    with pytest.raises(GrantError) as refused:
        world.intersect(thief)
    assert refused.value.field == "sub"
    request = requests.new_request(
        grant=world.grant,
        operation="psi.ecdh.v1",
        dataset="planes",
        params={},
        rows=1,
        purpose="check",
        audience=REGISTRY.name,
        san=RIVAL.name,
        key=RIVAL.key.public,
    )
    with pytest.raises(GrantError) as refused:
        opening = Opening(grant=world.grant, request=request.sign(RIVAL.key), rows=40)
        first = TurnDescriptor(job=request.jti, run=0, turn=0, opening=opening)
        thief.channel.action("open", first.encode())
    assert refused.value.field == "key"
    assert "job.denied" not in world.types()


def test_a_grant_for_another_node_is_not_sent(world):
    with pytest.raises(GrantError, match=r"other\.example"):
        world.session(grant=world.issue(audience="other.example"))


def test_wrong_columns_datasets_and_options_are_named_before_anything_is_spent(world):
    session = world.session()
    cases = [
        (lambda: session.intersect("plains", FLIGHTS, on="tail"), ParameterError, "planes"),
        (lambda: session.intersect("planes", FLIGHTS, on={"tail": "seats"}), ParameterError, "matched on"),
        (lambda: session.intersect("planes", FLIGHTS, on={"wing": "tailnum"}), TableError, "wing"),
        (lambda: session.intersect("planes", FLIGHTS, on={"flight": "tailnum"}), TableError, "integer"),
        (lambda: world.intersect(session, output="pairs"), ParameterError, "output"),
        (lambda: world.intersect(session, reveal="nobody"), ParameterError, "reveal"),
        (lambda: session.quote("psi.unknown.v1", "planes", rows=1), ParameterError, "psi.ecdh.v1"),
        (lambda: session.quote("psi.ecdh.v1", "planes", rows=-1), ParameterError, "rows"),
        (lambda: world.intersect(session, job="0" * 32), ParameterError, "kept"),
        (
            lambda: world.intersect(world.session(grant=world.issue(purposes=["a", "b"]))),
            ParameterError,
            "purpose",
        ),
    ]
    for call, kind, message in cases:
        with pytest.raises(kind, match=message):
            call()
    assert world.used() == 0


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["lose request", "lose answer", "cut answer", "repeat"])
def test_a_lost_or_repeated_turn_is_tried_again_and_charged_once(world, fault):
    found = world.intersect(world.session(plan={0: fault}))
    assert found.left_rows.tolist() == MATCHED
    assert world.used() == 1
    assert world.types().count("job.posted") == 1
    world.check()


@pytest.mark.fault
@pytest.mark.parametrize("fault", ["lose request", "lose answer"])
def test_an_interrupted_job_goes_on_in_another_process_with_the_same_answer(world, tmp_path, fault):
    state = tmp_path / "jobs"
    with pytest.raises(JobInterrupted) as interrupted:
        world.intersect(world.session(plan=dict.fromkeys(range(9), fault), state=state))
    assert "job=" in str(interrupted.value)
    found = world.intersect(world.session(state=state), job=interrupted.value.job)
    assert found.left_rows.tolist() == MATCHED
    assert found.job == interrupted.value.job
    assert world.types().count("job.posted") == 1
    assert world.used() == 1


@pytest.mark.fault
def test_a_resumed_job_refuses_another_table_dataset_or_output(world, tmp_path):
    state = tmp_path / "jobs"
    with pytest.raises(JobInterrupted) as interrupted:
        world.intersect(world.session(plan=dict.fromkeys(range(9), "lose answer"), state=state))
    job, session = interrupted.value.job, world.session(state=state)
    with pytest.raises(ParameterError, match="another table"):
        session.intersect("planes", FLIGHTS.slice(0, 2), on={"tail": "tailnum"}, job=job)
    with pytest.raises(ParameterError, match=r"another table|for a count"):
        world.intersect(session, output="count", job=job)


@pytest.mark.fault
def test_a_posted_answer_is_served_again_after_a_restart(world, tmp_path):
    state = tmp_path / "jobs"
    with pytest.raises(JobInterrupted) as interrupted:
        world.intersect(world.session(plan=dict.fromkeys(range(9), "lose answer"), state=state))
    world.restart()
    assert world.broker.job(interrupted.value.job).state == "posted"
    found = world.intersect(world.session(state=state), job=interrupted.value.job)
    assert found.left_rows.tolist() == MATCHED
    assert world.types().count("job.posted") == 1
    assert world.broker.outbox.names() == set()
    world.check()


@pytest.mark.fault
def test_the_same_turn_with_other_bytes_is_refused_and_logged(world, tmp_path):
    state = tmp_path / "jobs"
    for restart in (False, True):
        with pytest.raises(JobInterrupted) as interrupted:
            world.intersect(world.session(plan=dict.fromkeys(range(9), "lose answer"), state=state))
        if restart:
            world.restart()
        with pytest.raises(RemoteProtocolError, match="other bytes"):
            world.intersect(world.session(plan={0: "flip request"}, state=state), job=interrupted.value.job)
        assert world.types().count("incident") == 1 + restart
    world.check()


@pytest.mark.fault
def test_an_altered_answer_is_acknowledged_and_then_refused(world):
    """The countersignature is for what arrived; the provider sees that it is not what was sent."""
    with pytest.raises((GrantError, RemoteProtocolError)):
        world.intersect(world.session(plan=dict.fromkeys(range(9), "flip answer")))
    assert world.types().count("job.posted") == 1
    assert "job.countersigned" not in world.types()


@pytest.mark.fault
def test_actions_for_jobs_of_others_or_that_do_not_exist_tell_nothing(world):
    found = world.intersect()
    thief = world.channel(RIVAL)
    for action in ("receipt", "cancel"):
        with pytest.raises(Conflict) as others:
            thief.action(action, JobRequest(job=found.job).encode())
        with pytest.raises(Conflict) as unknown:
            thief.action(action, JobRequest(job="0" * 32).encode())
        assert str(others.value) == str(unknown.value)


GARBAGE = [
    b"",
    b"{",
    b"[]",
    b"null",
    b'{"grant":1}',
    b'{"grant":"x","more":1}',
    b'{"grant":"x","grant":"y"}',
    b"\xff\xfe",
    b"9" * 2_000_000,
]


@pytest.mark.fault
@pytest.mark.parametrize("body", GARBAGE)
@pytest.mark.parametrize("action", ["catalog", "quote", "open", "receipt", "countersign", "cancel", "steal"])
def test_garbage_is_refused_without_a_trace_of_our_insides(world, action, body):
    with pytest.raises((RemoteProtocolError, GrantError)) as refused:
        world.channel().action(action, body)
    assert not any(inside in str(refused.value) for inside in ("Traceback", "/src/", "pydantic"))


@pytest.mark.fault
@pytest.mark.parametrize(
    "descriptor",
    [b"", b"{}", b'{"job":"x","run":0,"turn":0}', canonical.dumps({"job": "0" * 32, "run": 1, "turn": 0})],
)
def test_turns_of_no_job_are_refused(world, descriptor):
    with pytest.raises((RemoteProtocolError, Conflict)):
        world.channel().exchange(descriptor, [])


def test_rows_and_bytes_charged_follow_from_what_was_declared_only(world):
    """Whether keys match or not leaves no trace in what is charged."""
    charged = []
    for table in ({"tail": ["N1", "N2"]}, {"tail": ["X1", "X2"]}):
        found = world.session().intersect("planes", table, on={"tail": "tailnum"})
        charged.append(found.receipt.verify(world.broker.log_key).fields["usage"])
    assert charged[0] == charged[1]


def test_a_quote_for_other_parameters(world):
    body = QuoteRequest(
        grant=world.grant, operation=THREE_TURNS.id, dataset="planes", params={}, rows=7
    ).encode()
    assert b'"rows":7' in world.channel().action("quote", body)
    assert AIRLINE.name == world.session().grant.sub


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"keys": ["nope"]}, "nope"), ({"keys": []}, "key columns"), ({"id": "x" * 300}, "cannot be offered")],
)
def test_a_dataset_that_cannot_be_offered_is_found_at_the_start(world, changes, message):
    from trustcompute.errors import InputError
    from trustcompute.node import Dataset, Node

    dataset = Dataset(**({"id": "d", "source": PLANES, "version": "1", "keys": ["tailnum"]} | changes))
    with pytest.raises(InputError, match=message):
        Node(REGISTRY, world.broker, [dataset])
    with pytest.raises(InputError, match="two datasets"):
        Node(REGISTRY, world.broker, [Dataset("d", PLANES, version="1", keys=["tailnum"])] * 2)


@pytest.mark.parametrize("on", [3, None, [["tail"]], {}, {"tail": 3}])
def test_keys_that_name_no_columns(world, on):
    with pytest.raises(ParameterError, match="on must be"):
        world.session().intersect("planes", FLIGHTS, on=on)
