"""Fixtures of the broker's tests, and a book in memory that commands about money can be applied to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.broker.conftest import world
from trustcompute.broker import log
from trustcompute.broker.clearing import Clearing
from trustcompute.broker.grant import PricePlan, Share

__all__ = ["world"]


@dataclass
class Ledger:
    """What ``writer.Book`` is to the commands, without a disk; a refused command leaves no entry."""

    now: int = 0
    bodies: list[bytes] = field(default_factory=list)
    kept: list[Any] = field(default_factory=list)

    @property
    def size(self) -> int:
        return len(self.bodies)

    @property
    def committed(self) -> int:
        return len(self.bodies)

    def entries(self, start: int = 0) -> Iterator[log.Entry]:
        return iter([log.decode(index, body) for index, body in enumerate(self.bodies)][start:])

    def record(
        self, kind: str, fields: Mapping[str, Any], concealed: Mapping[str, bytes] | None = None
    ) -> int:
        hidden = {name: log.conceal(self.size, name, value)[0] for name, value in (concealed or {}).items()}
        self.bodies.append(log.encode(kind, self.now, {**fields, **hidden}))
        return self.size - 1

    def keep(self, evidence: Any) -> None:
        self.kept.append(evidence)

    def apply(self, command: Any) -> Any:
        before = self.size
        try:
            return command.apply(self)
        except Exception:
            assert self.size == before, "a refused command posts nothing"
            raise

    def clearing(self) -> Clearing:
        return Clearing.of(self.entries())

    def grant(
        self, name: str, price: PricePlan, split: Sequence[Share] | Mapping[str, str] = (), **fields: Any
    ) -> int:
        shares = [Share(party=p, share=s) for p, s in split.items()] if isinstance(split, Mapping) else split
        terms = {"grant": name, "subject": "grantee", "nbf": 0, "exp": 2**40} | fields
        documents = {"price": price.to_document(), "split": [share.to_document() for share in shares]}
        return self.record("grant.issued", terms | documents)

    def use(self, grant: str, *, payer: str = "payer", **fields: Any) -> int:
        terms = {"grant": grant, "payer": payer, "operation": "op", "purpose": "p", "usage": {"calls": 1}}
        return self.record("job.posted", terms | fields)
