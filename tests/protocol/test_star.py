"""The star: what is scattered arrives, who fails has dropped out, every leg ends."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from trustcompute.errors import LocalProtocolError, TransportError
from trustcompute.protocol.message import Column
from trustcompute.protocol.party import receive, send
from trustcompute.protocol.star import Hub, TooFew, gather, message, run_star, scatter
from trustcompute.protocol.transcript import Binding

BINDING = Binding("", "test.star.v1", {}, "hub", "peer")
ONE = Column("i8", (1,))
GONE = TransportError("gone")


def number(value):
    return np.array([value], dtype=np.int64)


def adder(peers, *, at_least=1, rounds=2):
    total, left = 0, list(peers)
    for turn in range(rounds):
        yield from scatter({peer: message("ask", turn=number(turn)) for peer in left})
        got = yield from gather("number", left, at_least=at_least, value=ONE)
        left = list(got)
        total += sum(int(one["value"][0]) for one in got.values())
    yield from scatter({peer: message("total", value=number(total)) for peer in left})
    return total, left


def peer(value, *, rounds=2, fail_at=None, error=GONE, wait=0.0):
    for turn in range(rounds):
        asked = yield from receive("ask", turn=ONE)
        assert asked["turn"][0] == turn
        if turn == fail_at:
            raise error
        time.sleep(wait)
        yield from send("number", value=number(value))
    return int((yield from receive("total", value=ONE))["value"][0])


def test_everyone_is_heard_and_told():
    run = run_star(adder("abc"), {name: peer(at) for at, name in enumerate("abc")}, BINDING)
    assert run.result == (6, ["a", "b", "c"])
    assert run.outputs == {"a": 6, "b": 6, "c": 6}
    assert run.costs["a"] == run.costs["c"]


def test_who_fails_has_dropped_out_and_the_others_go_on():
    parties = {"a": peer(1), "b": peer(10, fail_at=1), "c": peer(100, fail_at=0)}
    run = run_star(adder(parties), parties, BINDING)
    assert run.result == (1 + 10 + 1, ["a"])
    assert run.reasons == {"b": "gone", "c": "gone"}
    assert run.outputs == {"a": 12}


def test_too_few_ends_all_and_says_who_and_why():
    parties = {"a": peer(1), "b": peer(10, fail_at=1)}
    threads = threading.active_count()
    with pytest.raises(TooFew, match="1 of 2 answered with 'number', and 2 are needed: b: gone") as caught:
        run_star(adder(parties, at_least=2), parties, BINDING)
    assert caught.value.reasons == {"b": "gone"}
    assert threading.active_count() == threads


def test_who_takes_too_long_has_dropped_out():
    parties = {"a": peer(1), "b": peer(10, wait=0.5)}
    run = run_star(adder(parties), parties, BINDING, patience=0.2)
    assert run.result[1] in (["a"], [])  # on a machine that stands still, both
    assert "no answer within 0.2 seconds" in run.reasons["b"]


def test_a_bug_of_ours_is_no_drop_out():
    parties = {"a": peer(1), "b": peer(10, fail_at=0, error=KeyError("bug"))}
    with pytest.raises(KeyError, match="bug"):
        run_star(adder(parties), parties, BINDING)


def test_a_wrong_message_is_refused_by_the_driver():
    def liar():
        yield from receive("ask", turn=ONE)
        yield from send("number", value=np.zeros(2, dtype=np.int64))

    run = run_star(adder("ab"), {"a": peer(1), "b": liar()}, BINDING)
    assert run.result == (2, ["a"])
    assert "declared sizes allow" in run.reasons["b"]


def test_what_take_refuses_is_a_drop_out():
    def picky():
        def take(name, got):
            if name == "b":
                raise LocalProtocolError("not b")
            return int(got["value"][0])

        yield from scatter({name: message("ask", turn=number(0)) for name in "ab"})
        return (yield from gather("number", "ab", at_least=1, take=take, value=ONE))

    def once(value):
        yield from receive("ask", turn=ONE)
        yield from send("number", value=number(value))

    run = run_star(picky(), {"a": once(1), "b": once(2)}, BINDING)
    assert run.result == {"a": 1}
    assert run.reasons == {"b": "not b"}


def test_peers_have_different_names():
    with pytest.raises(LocalProtocolError):
        Hub(["a", "a"])
