"""Taking in a deny-list or a policy: the command that ``Broker.publish`` runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trustcompute.broker.notice import RULES, SUPERSEDED, Notice
from trustcompute.broker.rules import Rules
from trustcompute.broker.store import Evidence, Touched
from trustcompute.broker.writer import Book
from trustcompute.errors import GrantError


@dataclass(frozen=True, slots=True)
class Publish:
    """rules: verified; token, hash: as signed. The same document again does nothing, an older one is refused.

    older: thumbprints of keys that the issuer had before; what was laid down with them is superseded.
    """

    rules: Rules
    token: str
    hash: str
    older: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.rules.kind}/{self.rules.iss}"

    @property
    def touched(self) -> Touched:
        return Touched(notices=(self.name, *self._superseded))

    @property
    def _superseded(self) -> tuple[str, ...]:
        return tuple(f"{self.rules.kind}/{key}" for key in self.older)

    def apply(self, book: Book) -> None:
        held = book.notice(self.name)
        if held is not None and held.hash == self.hash:
            return
        if held is not None and self.rules.version <= held.version:
            raise GrantError(
                f"version {held.version} of this {self.rules.kind} is in force: "
                f"a newer one has version {held.version + 1} or more",
                "version",
            )
        fields: dict[str, Any] = {
            "kind": self.rules.kind,
            "issuer": self.rules.iss,
            "version": self.rules.version,
            "hash": self.hash,
        }
        past = [each for name in self._superseded if (each := book.notice(name)) and each.state == RULES]
        if past:
            fields["supersedes"] = [each.name for each in past]
        entry = book.record("rules.published", fields)
        for each in past:
            book.put_notice(each._replace(state=SUPERSEDED, entry=entry))
        book.keep(Evidence(self.hash, self.rules.kind, self.hash, self.token))
        book.put_notice(Notice(self.name, RULES, self.rules.version, self.hash, self.token, entry))
