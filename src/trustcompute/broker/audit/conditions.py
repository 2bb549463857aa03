"""What stands above and beside grants, replayed: their standing and reviews, deny-lists and policies, credit events."""

from __future__ import annotations

from typing import Any, Final

from trustcompute.broker import credit, meter, standing
from trustcompute.broker.audit.custody import Custody
from trustcompute.broker.audit.fault import EntryError
from trustcompute.broker.log import Entry
from trustcompute.broker.notice import RULES, SUPERSEDED, topics

_BEFORE: Final = {
    "grant.suspended": (standing.ACTIVE,),
    "grant.resumed": (standing.SUSPENDED,),
    "grant.ending": (standing.ACTIVE, standing.SUSPENDED),
    "grant.ended": (standing.ENDING,),
}
_AFTER: Final = {
    "grant.suspended": standing.SUSPENDED,
    "grant.resumed": standing.ACTIVE,
    "grant.ending": standing.ENDING,
    "grant.ended": standing.ENDED,
}


class Conditions:
    """notices: state and entry, by name; credits: open events of parties, the day of each and what it says."""

    def __init__(self, custody: Custody, notices: dict[str, tuple[str, int]]) -> None:
        self._custody, self.notices = custody, notices
        self.credits: dict[str, dict[str, tuple[int, credit.Ceiling]]] = {}
        self._published: dict[str, dict[str, Any]] = {}  # rules in force, by name
        self._references: set[tuple[str, str, int, str]] = set()  # of all rules that ever were

    def standing(self, entry: Entry) -> None:
        name = topics(entry.fields["grant"])[0]
        state, _ = self.notices.get(name, (standing.ACTIVE, 0))
        if state not in _BEFORE[entry.type]:
            raise EntryError(f"the grant was {state} before", entry.index)
        self.notices[name] = _AFTER[entry.type], entry.index

    def reviewed(self, entry: Entry) -> None:
        self.notices[topics(entry.fields["grant"])[1]] = standing.REVIEWED, entry.index

    def published(self, entry: Entry) -> None:
        kind, issuer, version, hash_ = (entry.fields[name] for name in ("kind", "issuer", "version", "hash"))
        name = f"{kind}/{issuer}"
        if version <= self._published.get(name, {"version": 0})["version"]:
            raise EntryError(f"a newer {kind} of the same issuer was in force", entry.index)
        self._published[name] = {"version": version, "hash": hash_}
        self._references.add((kind, issuer, version, hash_))
        for superseded in entry.fields.get("supersedes", ()):
            if self.notices.get(superseded, ("", 0))[0] != RULES:
                raise EntryError("it supersedes rules that were not in force", entry.index)
            self.notices[superseded] = SUPERSEDED, entry.index
        self.notices[name] = RULES, entry.index

    def lowered(self, entry: Entry) -> None:
        ceiling = credit.Ceiling.model_validate(entry.fields["ceiling"])
        events = self.credits.setdefault(self._credited(entry), {})
        if ceiling.empty or entry.fields["token"] in events or len(events) == credit.MAX_OPEN:
            raise EntryError("it lowers nothing, or was recorded before", entry.index)
        events[entry.fields["token"]] = meter.day_of(entry.time), ceiling
        self.notices[credit.name_of(entry.fields["party"])] = credit.LOWERED, entry.index

    def repaired(self, entry: Entry) -> None:
        events = self.credits.get(self._credited(entry), {})
        if events.pop(entry.fields["event"], None) is None:
            raise EntryError("it repairs no open credit event", entry.index)
        state = credit.LOWERED if events else credit.RESTORED
        self.notices[credit.name_of(entry.fields["party"])] = state, entry.index

    def _credited(self, entry: Entry) -> str:
        if entry.fields["by"] != self._custody.owner:
            raise EntryError("a credit event is recorded by the log's owner", entry.index)
        return str(entry.fields["party"])

    def ceilings(self, party: str, window: int) -> list[credit.Ceiling]:
        return [ceiling for day, ceiling in self.credits.get(party, {}).values() if day < window]

    def decided(self, entry: Entry) -> None:
        """By rules that were published before."""
        for each in entry.fields.get("rules", ()):
            if (each["kind"], each["issuer"], each["version"], each["hash"]) not in self._references:
                raise EntryError("it was decided by rules that the log does not know", entry.index)

    def ended(self, grant: str) -> bool:
        """Whether the grant was given up, and the last job under it has ended."""
        return self.notices.get(topics(grant)[0], ("", 0))[0] == standing.ENDED
