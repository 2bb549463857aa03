"""Parties, frames and runners: what a peer may send, and what happens when it sends something else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.errors import LocalProtocolError, RemoteProtocolError
from trustcompute.primitives import canonical
from trustcompute.protocol.message import (
    Address,
    AtMost,
    Column,
    Message,
    decode,
    encode,
    frame_digest,
    parse_header,
)
from trustcompute.protocol.party import Party, receive, send
from trustcompute.protocol.run import Runner, drive, in_memory, run_local, take_again, turn_digest
from trustcompute.protocol.transcript import Binding
from trustcompute.testing import answerer, asker

BINDING = Binding("g" * 64, "test.three-turns.v1", {"a": 1}, "asker", "answerer")
ADDRESS = Address("0" * 32, 0, 0, "asker")


def pair(**options):
    numbers = np.arange(5, dtype=np.int64)
    return Runner(asker(numbers), BINDING, leads=True), Runner(answerer(), BINDING, leads=False, **options)


def altered(given, /, **fields):
    """The turn's frames with header fields replaced."""
    frames = []
    for frame in given.frames:
        header = canonical.dumps(canonical.loads(frame.header, limit=4096) | fields)
        frames.append(replace(frame, header=header, digest=frame_digest(header, frame.body)))
    return in_memory(frames)


def test_both_sides_finish_with_results_and_the_same_transcript():
    ours, theirs = pair()

    def exchange(turn):
        theirs.take(turn.number, in_memory(turn.frames))
        return in_memory(theirs.give().frames)

    assert drive(ours, exchange) == 10
    assert theirs.result == "thanked"
    assert ours.transcript == theirs.transcript
    assert ours.cost.bytes_sent == theirs.cost.bytes_received > 40
    assert ours.cost.turns == 3


def test_a_released_answer_is_acknowledged_before_the_party_sees_it():
    ours, theirs = pair()
    seen = []

    def exchange(turn):
        theirs.take(turn.number, in_memory(turn.frames))
        answer = theirs.give()
        seen.append((answer.releases, answer.digest))
        return in_memory(answer.frames)

    acknowledged = []
    drive(
        ours,
        exchange,
        released=lambda answer: acknowledged.append((answer.digest, ours.cost.turns, ours.done)),
    )
    released = [digest for releases, digest in seen if releases]
    assert acknowledged[0] == (released[0], 2, False)
    assert {digest for digest, _, _ in acknowledged} == set(released)


def test_the_binding_is_part_of_the_transcript():
    one = run_local(asker(np.arange(3, dtype=np.int64)), answerer(), BINDING)
    other = run_local(asker(np.arange(3, dtype=np.int64)), answerer(), replace(BINDING, params={"a": 2}))
    assert one.consumer == other.consumer == 3
    assert one.transcript != other.transcript


def test_give_and_take_are_idempotent_and_the_hook_runs_once_a_turn():
    turns = []
    ours, theirs = pair(before_send=turns.append)
    asked = ours.give()
    assert ours.give() is asked
    theirs.take(0, in_memory(asked.frames))
    ready = theirs.give()
    theirs.take(0, in_memory(asked.frames))
    assert theirs.give() is ready
    assert turns == [ready]


def test_the_same_turn_with_other_bytes_is_refused():
    ours, theirs = pair()
    asked = ours.give()
    theirs.take(0, in_memory(asked.frames))
    theirs.give()
    other = Runner(asker(np.arange(6, dtype=np.int64)), BINDING, leads=True).give()
    with pytest.raises(RemoteProtocolError, match="other bytes"):
        theirs.take(0, in_memory(other.frames))
    with pytest.raises(RemoteProtocolError, match="other bytes"):
        theirs.take(0, [])
    with pytest.raises(RemoteProtocolError, match="other bytes"):
        take_again(theirs.taken, [*in_memory(asked.frames), *in_memory(asked.frames)])
    theirs.take(0, in_memory(asked.frames))


def test_a_hook_that_fails_leaves_the_turn_unsent_and_is_asked_again_with_the_same_frames():
    calls = []

    def hook(turn):
        calls.append(turn)
        if len(calls) == 1:
            raise OSError("disk full")

    ours, theirs = pair(before_send=hook)
    asked = ours.give()
    theirs.take(0, in_memory(asked.frames))
    with pytest.raises(OSError, match="disk full"):
        theirs.give()
    theirs.take(0, in_memory(asked.frames))
    theirs.give()
    assert calls[0] is calls[1]


def two_messages() -> Party[int]:
    yield from send("first", value=np.zeros(3, np.uint8))
    yield from send("second", value=np.ones(2, np.uint8))
    return 0


def two_received() -> Party[int]:
    first = yield from receive("first", value=Column("u1", (3,)))
    second = yield from receive("second", value=Column("u1", (AtMost(4),)))
    return int(first["value"].sum() + second["value"].sum())


def test_a_turn_that_was_cut_off_may_be_sent_again():
    ours, theirs = Runner(two_messages(), BINDING, leads=True), Runner(two_received(), BINDING, leads=False)
    turn = ours.give()
    with pytest.raises(RemoteProtocolError, match="cut off"):
        theirs.take(0, in_memory(turn.frames)[:1])
    theirs.take(0, in_memory(turn.frames))
    theirs.give()
    assert theirs.result == 2


def test_reordered_repeated_and_surplus_messages_are_refused():
    turn = Runner(two_messages(), BINDING, leads=True).give()
    first, second = in_memory(turn.frames)
    for frames in ([second, first], [first, first], [first, second, second]):
        theirs = Runner(two_received(), BINDING, leads=False)
        with pytest.raises(RemoteProtocolError):
            theirs.take(0, frames)
            theirs.give()


@pytest.mark.parametrize(
    "fields",
    [
        {"job": "1" * 32},
        {"run": 1},
        {"turn": 1},
        {"from": "answerer"},
        {"kind": "other"},
        {"columns": [["size", "i8", [2]]]},
        {"columns": [["size", "u8", [1]]]},
        {"columns": [["other", "i8", [1]]]},
        {"columns": [["size", "i8", [2**39]]]},
        {"columns": []},
        {"v": 2},
        {"extra": 1},
        {"last": 1},
    ],
)
def test_a_header_that_is_not_due_is_refused_before_its_body_is_read(fields):
    ours, theirs = pair()
    frames = altered(ours.give(), **fields)
    frames[0].body = lambda size: pytest.fail("the body was read")
    with pytest.raises(RemoteProtocolError):
        theirs.take(0, frames)


def test_a_peer_that_ends_its_turn_early_is_refused_and_the_run_is_over():
    ours = Runner(two_messages(), BINDING, leads=True)
    theirs = Runner(two_received(), BINDING, leads=False)
    theirs.take(0, altered(ours.give(), last=True)[:1])
    with pytest.raises(RemoteProtocolError, match="ended before"):
        theirs.give()
    assert theirs.failed


def test_turns_out_of_order_are_refused():
    ours, theirs = pair()
    turn = ours.give()
    with pytest.raises(RemoteProtocolError, match="out of order"):
        theirs.take(1, in_memory(turn.frames))
    with pytest.raises(LocalProtocolError, match="first turn"):
        theirs.give()
    theirs.take(0, [])
    with pytest.raises(RemoteProtocolError, match="ended before"):
        theirs.give()


def test_a_party_that_raises_ends_its_run():
    def broken() -> Party[int]:
        yield from receive("ask", size=Column("i8", (1,)))
        raise ValueError("inside")

    ours, _ = pair()
    theirs = Runner(broken(), BINDING, leads=False)
    theirs.take(0, in_memory(ours.give().frames))
    with pytest.raises(ValueError, match="inside"):
        theirs.give()
    assert theirs.failed
    with pytest.raises(LocalProtocolError, match="failed before"):
        theirs.give()


def test_a_consumer_may_wait_in_its_first_turn():
    result = run_local(two_received(), two_messages(), BINDING)
    assert result.consumer == 2
    assert result.cost.turns == 1


@pytest.mark.property
@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8"]),
            st.lists(st.integers(0, 4), max_size=3),
        ),
        max_size=4,
    ),
    st.booleans(),
    st.booleans(),
)
def test_frames_round_trip(columns, last, releases):
    rng = np.random.default_rng(1)
    message = Message(
        "some",
        {f"c{i}": rng.integers(0, 100, shape).astype(dtype) for i, (dtype, shape) in enumerate(columns)},
    )
    frame = encode(message, ADDRESS, last=last, releases=releases)
    header = parse_header(frame.header)
    assert (header.address, header.last, header.releases) == (ADDRESS, last, releases)
    body = b"".join(frame.body)
    assert len(body) == header.body_size
    back = decode(header, memoryview(body))
    assert list(back.columns) == list(message.columns)
    for name, values in message.columns.items():
        assert np.array_equal(back[name], values)
        assert back[name].dtype == values.dtype


@pytest.mark.property
@settings(max_examples=200, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_altered_byte_of_a_header_is_refused_or_changes_the_digest(position, change):
    frame = encode(Message("ask", {"size": np.array([3])}), ADDRESS, last=True, releases=False)
    raw = bytearray(frame.header)
    raw[position % len(raw)] ^= change
    assert frame_digest(bytes(raw), frame.body) != frame.digest
    theirs = Runner(answerer(), BINDING, leads=False)
    incoming = in_memory(Runner(asker(np.arange(3)), BINDING, leads=True).give().frames)[0]
    incoming.header = bytes(raw)
    try:
        theirs.take(0, [incoming])
        theirs.give()
    except RemoteProtocolError:
        return
    assert turn_digest(theirs.taken) != turn_digest(
        [frame]
    )  # only the flags can change and still be well-formed


@pytest.mark.parametrize(
    "values",
    [np.zeros(2, np.float64), np.zeros(2, np.complex64), np.array(["a"]), np.zeros((1, 1, 1, 1), np.int64)],
)
def test_columns_without_a_wire_form_are_our_own_error(values):
    with pytest.raises(LocalProtocolError, match="wire form"):
        encode(Message("ask", {"size": values}), ADDRESS, last=True, releases=False)


def test_a_wrong_word_about_what_a_turn_releases_is_refused():
    """Else a provider could collect a countersignature for an early turn."""
    ours, theirs = pair()
    theirs.take(0, in_memory(ours.give().frames))
    with pytest.raises(RemoteProtocolError, match="releases"):
        ours.take(0, altered(theirs.give(), releases=True))


def test_the_party_starts_after_the_hook_and_only_for_a_frame_of_its_run():
    started = []
    ours, theirs = pair(before_start=lambda: started.append(True))
    with pytest.raises(RemoteProtocolError, match="another job"):
        theirs.take(0, altered(ours.give(), job="1" * 32))
    assert not started
    theirs.take(0, in_memory(ours.give().frames))
    theirs.give()
    assert started == [True]
