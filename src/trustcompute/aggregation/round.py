"""One aggregate as its parties know it: what is asked, of whom, and that it is this one.

Called by the schemes and the node.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from trustcompute.aggregation.spec import Spec
from trustcompute.primitives import canonical
from trustcompute.protocol.roster import Assembly

_DOMAIN: Final = b"trustcompute aggregation round v1\n"


@dataclass(frozen=True)
class Round(Assembly):
    """One aggregate: specification, all who are asked (in order), and 16 bytes that nobody uses again."""

    spec: Spec
    parties: tuple[str, ...]
    session: bytes

    @property
    def threshold(self) -> int:
        return self.spec.threshold(len(self.parties))

    @cached_property
    def context(self) -> bytes:
        about = {"spec": self.spec.digest, "parties": list(self.parties), "session": self.session.hex()}
        return hashlib.sha256(_DOMAIN + canonical.dumps(about)).digest()
