"""Intersections over what has changed, over a node: the body of ``Session.intersect_changes``, and the provider's side.

The asker keeps, for each dataset and key, what its last run left (``psi.changing.Followed``): in the session's state
directory, or in the session. It is replaced once the receipt of a run is in.
"""

from __future__ import annotations

import hashlib
import os
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trustcompute.errors import ParameterError
from trustcompute.node.dataset import HeldDataset
from trustcompute.node.intersection import Asked, MeteredIntersection
from trustcompute.primitives import canonical
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.psi import delta
from trustcompute.psi.changing import Followed, load_followed, save_followed
from trustcompute.psi.intersection import On, rows_found

if TYPE_CHECKING:
    from trustcompute.node.documents import Changing
    from trustcompute.node.session import Session


def intersect_changes(
    session: Session,
    dataset: str,
    table: Any,
    *,
    on: On,
    purpose: str | None,
    scenario: str | None,
    job: str | None,
) -> MeteredIntersection:
    """See ``Session.intersect_changes``."""
    about = Asked.of(session, dataset, table, on)
    theirs, choice, keys = about.theirs, about.choice, about.keys
    if choice.changing is None:
        raise ParameterError(f"dataset {dataset!r} is not followed on {theirs}: use intersect")
    kept = session.follows
    name = f"{session.grant.aud}\n{dataset}\n{canonical.dumps(theirs).decode()}\n{keys.spec.digest}"
    followed = kept.of(name, choice.changing.lineage)
    sizes = Sizes(int((~followed.own.known(keys.digests)).sum()), choice.distinct)
    done = session.compute(
        delta.OPERATION,
        dataset,
        delta.parameters(
            theirs,
            keys.spec.digest,
            choice.changing.table,
            followed,
            keys.digests,
            **_way(choice.changing, followed, choice.distinct),
        ),
        sizes,
        lambda params, rng: delta.consumer(
            params, sizes, keys.digests, followed, rng, executor=session.executor
        ),
        input_digest=bytes.fromhex(keys.digest),
        purpose=purpose,
        scenario=scenario,
        job=job,
    )
    kept.keep(name, done.output.followed)
    return MeteredIntersection(
        count=done.output.found.count,
        left_rows=rows_found(done.output.found, keys),
        protocol=delta.ID,
        cost=done.cost,
        leakage=done.leakage,
        left=about.table,
        left_keys=keys,
        job=done.job,
        acknowledged=done.acknowledged,
    )


def _way(changing: Changing, followed: Followed, rows: int) -> dict[str, Any]:
    """From the version we have to the one there is; from none, where that is too long ago."""
    for version in changing.versions:
        if version.base == followed.table_id:
            return {"base": version.base, "added": version.added, "removed": version.removed}
    return {"base": "", "added": rows, "removed": 0}


@dataclass
class Follows:
    """What earlier runs left, by dataset and key. directory: of the session's state; without one, in memory."""

    directory: Path | None

    def __post_init__(self) -> None:
        self._memory: dict[str, Followed] = {}

    def of(self, name: str, lineage: str) -> Followed:
        """What the last run left, if the holder still has that key; else nothing, and a fresh secret, kept at once so
        that a job which stops goes on with the same commitments."""
        path = self._path(name)
        if path is not None and name not in self._memory and path.exists():
            self._memory[name] = load_followed(path)
        found = self._memory.get(name)
        if found is None or found.lineage != lineage:
            found = Followed.none(lineage, os.urandom(32))
            self.keep(name, found)
        return found

    def keep(self, name: str, one: Followed) -> None:
        path = self._path(name)
        if path is not None:
            save_followed(path, one)
        self._memory[name] = one

    def _path(self, name: str) -> Path | None:
        if self.directory is None:
            return None
        return self.directory / f"{hashlib.sha256(name.encode()).hexdigest()[:32]}.followed"


def rows(held: HeldDataset, params: Params) -> int:
    """The dataset's keys. Refuses a version that is not kept, and numbers that are not those of its changes."""
    keys = held.keys(params["columns"])
    if keys.spec.digest != params["keys"]:
        raise ParameterError("the key specification is not that of the dataset: take it from the catalogue")
    delta.changes(held.changing(params["columns"]), params)
    return len(keys)


def provide(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    """The provider's party."""
    return delta.provider(params, sizes, held.changing(params["columns"]), executor=executor)
