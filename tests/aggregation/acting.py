"""Parties that vanish or change what they send, and stars whose relay changes what it passes on."""

from __future__ import annotations

from collections import Counter

from trustcompute.errors import TransportError
from trustcompute.protocol.message import Message
from trustcompute.protocol.party import Send


def acting(name, inner, *, vanish=(), tamper=None, relay=None):
    """The party of that name. vanish: (name, kind) it never sends, or (name, kind, n) whose n-th it does not; tamper,
    relay: (name, kind) -> function of the columns it sends, or is given."""
    tamper, relay, sent = tamper or {}, relay or {}, Counter()
    step = next(inner)
    while True:
        kind = step.message.kind if isinstance(step, Send) else step.kind
        if isinstance(step, Send) and {(name, kind), (name, kind, sent[kind])} & set(vanish):
            raise TransportError(f"{name} is gone")
        if isinstance(step, Send) and (name, kind) in tamper:
            step = Send(Message(kind, tamper[name, kind](dict(step.message.columns))), step.releases)
        sent[kind] += isinstance(step, Send)
        answer = yield step
        if answer is not None and (name, kind) in relay:
            answer = Message(kind, relay[name, kind](dict(answer.columns)))
        try:
            step = inner.send(answer)
        except StopIteration as stop:
            return stop.value
