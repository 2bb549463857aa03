"""Parties that vanish or change what they send, and stars whose relay changes what it passes on."""

from __future__ import annotations

from trustcompute.errors import TransportError
from trustcompute.protocol.message import Message
from trustcompute.protocol.party import Send


def acting(name, inner, *, vanish=(), tamper=None, relay=None):
    """The party of that name. vanish: (name, kind) it never sends; tamper, relay: (name, kind) -> function of the
    columns it sends, or is given."""
    tamper, relay = tamper or {}, relay or {}
    step = next(inner)
    while True:
        kind = step.message.kind if isinstance(step, Send) else step.kind
        if isinstance(step, Send) and (name, kind) in vanish:
            raise TransportError(f"{name} is gone")
        if isinstance(step, Send) and (name, kind) in tamper:
            step = Send(Message(kind, tamper[name, kind](dict(step.message.columns))), step.releases)
        answer = yield step
        if answer is not None and (name, kind) in relay:
            answer = Message(kind, relay[name, kind](dict(answer.columns)))
        try:
            step = inner.send(answer)
        except StopIteration as stop:
            return stop.value
