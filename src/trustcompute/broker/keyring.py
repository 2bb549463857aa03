"""Whose signatures count at a node: its own key, those it was told to trust, and those its log had before.

Held by ``Broker``. A grant that verified once is remembered by the hash of its token; whether it is revoked never is.
A key that was compromised counts for nothing new: of the grants it issued only those that the log had an entry of when
it was rotated, and no orders (``rotation``).
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Final

from trustcompute.broker import delegation, rotation
from trustcompute.broker.grant import VerifiedGrant
from trustcompute.broker.order import VerifiedOrder
from trustcompute.broker.writer import Writer
from trustcompute.errors import GrantError
from trustcompute.primitives.signing import VerifyKey, token_hash

CACHED_GRANTS: Final = 1024


class Keyring:
    """See the module. Any number of threads may share one."""

    def __init__(self, writer: Writer, name: str, keys: tuple[VerifyKey, ...]) -> None:
        """name: of the node, to which grants are addressed; keys: its own and those of others that count."""
        self._writer, self._name = writer, name
        self.trusted = {key.thumbprint: key for key in keys}
        self.past: dict[str, VerifyKey] = {}  # keys that this log had before
        self._stolen: frozenset[str] = frozenset()  # of these, by thumbprint
        self._verified: OrderedDict[str, VerifiedGrant] = OrderedDict()
        self._mutex = Lock()

    def learn(self) -> None:
        """Read from the book which keys the log had before."""
        with self._writer.view() as (reader, _):
            retired, stolen = (reader.notices_in(each) for each in (rotation.RETIRED, rotation.COMPROMISED))
        keys = [VerifyKey.from_x(each.token) for each in (*retired, *stolen)]
        self.past = {key.thumbprint: key for key in keys}
        self._stolen = frozenset(VerifyKey.from_x(each.token).thumbprint for each in stolen)

    def verify(self, token: str) -> VerifiedGrant:
        """A grant, or a chain of delegated ones, whose form and signatures hold. Raises ``GrantError``."""
        hash_ = token_hash(token) if token.isascii() else ""  # of all its links
        with self._mutex:
            known = self._verified.get(hash_)
            if known is not None:
                self._verified.move_to_end(hash_)
                return known
        verified = delegation.verify(token, self.trusted | self.past, self._name)
        self._check_issuer(verified)
        with self._mutex:
            self._verified[hash_] = verified
            while len(self._verified) > CACHED_GRANTS:
                self._verified.popitem(last=False)
        return verified

    def signed(self, token: str, audience: str) -> VerifiedGrant:
        """A grant that this node has just signed, for whichever node it is. Raises ``GrantError``."""
        return delegation.verify(token, self.trusted, audience)

    def check_order(self, order: VerifiedOrder) -> None:
        """Raises ``GrantError`` where it is signed with a key that was compromised."""
        if order.claims.iss in self._stolen:
            raise GrantError("the order is signed with a key that was compromised", "iss")

    def _check_issuer(self, verified: VerifiedGrant) -> None:
        root = verified.chain[-1]
        if root.claims.iss not in self._stolen:
            return
        with self._writer.view() as (reader, _):
            row = reader.grants([root.hash]).get(root.hash)
            notice = reader.notices([rotation.name_of(root.claims.iss)])
        if row is None or any(
            row.entry > each.entry for each in notice.values() if each.state == rotation.COMPROMISED
        ):
            raise GrantError("the issuer's key was compromised: ask for a grant under its new key", "iss")
