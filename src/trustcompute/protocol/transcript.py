"""The transcript of a run: one hash over who computes what under which grant, and over every frame in order.

Both sides hold the same value after the same turns, so a receipt that names it binds the whole conversation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from trustcompute.primitives import canonical

DOMAIN: Final = b"trustcompute transcript v1\n"


@dataclass(frozen=True, slots=True)
class Binding:
    """What a run is about: the hash of its grant, operation id, canonical parameters, and the roles' names."""

    grant: str
    operation: str
    params: Mapping[str, Any]
    consumer: str
    provider: str

    def digest(self) -> bytes:
        document = {
            "grant": self.grant,
            "operation": self.operation,
            "params": dict(self.params),
            "roles": [self.consumer, self.provider],
        }
        return hashlib.sha256(DOMAIN + canonical.dumps(document)).digest()


class Transcript:
    """A hash chain: ``state' = SHA-256(state ‖ frame digest)``, starting at the binding's digest."""

    __slots__ = ("_state",)

    def __init__(self, binding: Binding) -> None:
        self._state = binding.digest()

    def add(self, frame_digest: bytes) -> None:
        self._state = hashlib.sha256(self._state + frame_digest).digest()

    def hexdigest(self) -> str:
        return self._state.hex()
