"""Errors cross the wire and back, whatever a peer makes of them."""

from __future__ import annotations

import pytest

import trustcompute
from trustcompute import errors
from trustcompute.broker.audit import EntryError
from trustcompute.broker.tiles import TileError
from trustcompute.primitives.canonical import DocumentError
from trustcompute.protocol.star import TooFew
from trustcompute.verification import Disputed


def kinds(root=errors.TrustcomputeError):
    return [root, *(kind for child in root.__subclasses__() for kind in kinds(child))]


def make(kind):
    if kind is EntryError:
        return kind("what happened", 7)
    if kind is TileError:
        return kind("what happened", "tile/0/000", 7)
    if kind is Disputed:
        return kind("what happened", None)
    if kind is TooFew:
        return kind("what happened", {"bank.example": "it was not reached"}, {})
    return kind(
        "what happened",
        **dict.fromkeys(("rule", "field", "owner", "fix"), "x") if kind is errors.Refused else {},
    )


@pytest.mark.parametrize("kind", kinds(), ids=lambda kind: kind.__name__)
def test_every_error_comes_back_as_its_kind_or_the_one_it_is_a_kind_of(kind):
    if kind.__module__.startswith("trustcompute.kernels"):
        pytest.skip("never leaves the process")
    sent = make(kind).to_wire() if "what happened" in str(make(kind)) else None
    back = errors.from_wire(sent)
    assert isinstance(make(kind), type(back))
    assert "what happened" in str(back)
    assert trustcompute.errors is errors


@pytest.mark.parametrize(
    "document", [None, [], {}, {"code": 1}, {"message": 1}, {"code": "refused", "message": 7}]
)
def test_what_is_no_error_is_the_peers_fault(document):
    assert isinstance(errors.from_wire(document), errors.RemoteProtocolError)


def test_unknown_codes_and_control_characters():
    back = errors.from_wire({"code": "new.kind", "message": "red \x1b[31mtext\r\n" + "x" * 5000})
    assert isinstance(back, errors.RemoteProtocolError)
    assert "\x1b" not in str(back) and len(str(back)) < 2100
    assert type(errors.from_wire({"code": DocumentError.code, "message": "m"})) is errors.VerificationError
