"""Verification at a node: the holder's published predicates, their tables, and the provider's parties.

Called by ``dataset`` (tables are built or loaded when the node starts) and ``computation``. A directory of a
dataset's verification holds ``seed`` (secret: keys of all predicates and epochs come from it), ``place`` (public:
decides buckets) and a directory for each table. Without one everything lives as long as the node.
"""

from __future__ import annotations

import logging
import os
import secrets
import time
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trustcompute import tables, verification
from trustcompute.errors import ParameterError, Refused, StoreError, VerificationError
from trustcompute.primitives import oprf
from trustcompute.primitives.oprf import Mode
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.tables.progress import Callback
from trustcompute.verification import (
    bucket,
    building,
    descriptor,
    download,
    evaluated,
    operation,
    private,
    table,
    truth,
    update,
)
from trustcompute.verification.building import LEAST_IN_BUCKET
from trustcompute.verification.consent import Consents
from trustcompute.verification.operation import BUCKET, DOWNLOAD, PRIVATE
from trustcompute.verification.shelf import IN_MEMORY, Shelf
from trustcompute.verification.table import About, Table
from trustcompute.verification.truth import Truth

if TYPE_CHECKING:
    from trustcompute.node.dataset import HeldDataset


MAX_EARLIER: Final = 8
NAME: Final = 64
"""Characters of the name of a table's directory (``table.data_digest``)."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Published:
    """What may be verified of a dataset: a closed list.

    predicates: texts as ``verification.parse`` takes them. subject: the key columns that name a record. directory:
    where tables and their secrets are kept. epoch: of the keys; counted up to make all tables anew under other ones.
    least_in_bucket: records that a bucket of bucket mode holds at least. download: whether whole masked tables are
    given to those whose grants name ``verify.download.v1``. earlier: tables of each predicate, replaced by later ones,
    that still answer those who hold their descriptors: up to 8.
    consent: whether every question takes a token of the subject's (``verification.consent``).
    """

    predicates: Sequence[str]
    subject: str | Sequence[str]
    directory: Path | str | None = None
    epoch: int = 1
    least_in_bucket: int = LEAST_IN_BUCKET
    download: bool = False
    earlier: int = 1
    consent: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.earlier <= MAX_EARLIER:
            raise ParameterError(
                f"0 to {MAX_EARLIER} earlier tables of a predicate are served, not {self.earlier}"
            )
        texts = [str(verification.parse(text)) for text in self.predicates]
        if not texts or len(set(texts)) < len(texts):
            raise ParameterError("a dataset publishes one or more predicates, each once")

    @property
    def key(self) -> tuple[str, ...]:
        return (self.subject,) if isinstance(self.subject, str) else tuple(self.subject)


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a dataset, by the id of their descriptor; earlier: those that were replaced, the latest first.
    consents: takes tokens, where questions need them."""

    current: dict[str, Table]
    signer: SigningKey = field(repr=False)
    earlier: dict[str, Table] = field(default_factory=dict)
    consents: Consents | None = None

    @cached_property
    def by_id(self) -> dict[str, Table]:
        """All that answer."""
        return self.earlier | self.current

    def entries(self) -> list[dict[str, Any]]:
        """For the catalogue."""
        return [
            {
                "text": one.descriptor.predicate,
                "descriptor": one.masked.token,
                "consent": self.consents is not None,
                "earlier": [old.masked.token for old in self.earlier.values() if _same(old, one)],
            }
            for one in self.current.values()
        ]

    def after(self, before: Tables, earlier: int) -> Tables:
        """These, and of each predicate the latest of those ``before`` that are not among them."""
        kept: dict[str, Table] = {}
        for one in self.current.values():
            old = [
                (id_, table)
                for id_, table in (before.current | before.earlier | self.earlier).items()
                if _same(table, one)
            ]
            kept |= dict([pair for pair in old if pair[0] != one.id][:earlier])
        return replace(self, earlier=kept)


def _same(one: Table, other: Table) -> bool:
    return one.descriptor.predicate == other.descriptor.predicate


def held_tables(
    published: Published,
    dataset: str,
    version: str,
    source: tables.Table,
    signer: SigningKey,
    *,
    casefold: bool = False,
    executor: Executor | None = None,
    progress: Callback | None = None,
) -> Tables:
    """Build or load every table, when the node starts. progress: as for ``building.build``.

    Raises ``InputError``, ``StoreError``, ``VerificationError``.
    """
    directory = None if published.directory is None else Path(published.directory)
    seed, place = _kept(directory, "seed"), _kept(directory, "place")
    records = IN_MEMORY if directory is None else Shelf(directory / "truth")
    found, earlier = {}, [] if directory is None else _earlier(directory, dataset, seed, signer)
    for text in published.predicates:
        predicate = verification.parse(text)
        decided = truth.decide(
            source,
            published.key,
            predicate,
            casefold=casefold,
            executor=executor,
            shelf=records,
        )
        about = About(
            dataset=dataset,
            version=version,
            subject=published.key,
            predicate=predicate,
            place=place,
            epoch=published.epoch,
        )
        least = published.least_in_bucket
        built = _changed(about, decided, seed, signer, earlier, least=least, executor=executor)
        if built is None:
            built = building.build(
                about,
                decided,
                seed,
                signer,
                directory=directory,
                least_in_bucket=least,
                executor=executor,
                progress=progress,
            )
        found[built.id] = built
        records.remove()
    known = {one.table.id: one.table for one in earlier}
    consents = consents_of(published, dataset, seed) if published.consent else None
    return Tables(found, signer, consents=consents).after(Tables(known, signer), published.earlier)


def consents_of(published: Published, dataset: str, seed: bytes | None = None) -> Consents:
    """Issues and takes consents for a dataset. seed: its secret, read from its directory if left out."""
    directory = None if published.directory is None else Path(published.directory)
    secret = _kept(directory, "seed") if seed is None else seed
    return Consents(secret, dataset, None if directory is None else directory / "consents")


def admit(held: HeldDataset, params: Params, sizes: Sizes, job: str, now: int) -> None:
    """Take the consents of a job, before it has touched anything. Raises ``Refused``; ``ParameterError`` for a job that
    does not commit to what it asks about."""
    if "commitment" not in params:
        raise ParameterError("a question is committed to in the record: pass commitment (64 hex digits)")
    consents = held.verification.consents
    if consents is not None:
        consents.redeem(params.get("consent", []), params["predicate"], sizes.consumer, job=job, now=now)
    elif "consent" in params:
        raise ParameterError(f"dataset {held.dataset.id!r} takes no consents: leave them out")


@dataclass(frozen=True, eq=False)
class _Kept:
    """A table in a directory."""

    table: Table
    place: Path


def _changed(
    about: About,
    decided: Truth,
    seed: bytes,
    signer: SigningKey,
    earlier: list[_Kept],
    *,
    least: int,
    executor: Executor | None,
) -> Table | None:
    """The table of a predicate made from the latest of it, where there is one and it can be."""
    text = str(about.predicate)
    latest = next((one for one in earlier if one.table.descriptor.predicate == text), None)
    data = (
        building.data_digest(about, decided, bytes.fromhex(latest.table.descriptor.public)) if latest else ""
    )
    if latest is None or (latest.place.parent / data).exists():
        return None
    said = latest.table.descriptor
    records = evaluated.kept(latest.place, said.records, matches=said.elements is not None)
    if records is None:
        return None
    return update.build(
        about,
        decided,
        seed,
        signer,
        update.Before(latest.table.masked, records),
        directory=latest.place.parent,
        now=int(time.time()),
        least_in_bucket=least,
        executor=executor,
        told=lambda changed: log.info("%s: %s: %s", about.dataset, text, changed),
    )


def _earlier(directory: Path, dataset: str, seed: bytes, signer: SigningKey) -> list[_Kept]:
    """All tables of a dataset that are kept in a directory and that this signer signed, the latest first."""
    kept = [
        place
        for place in directory.iterdir()
        if len(place.name) == NAME and (place / "descriptor").is_file()  # else half kept when it was stopped
    ]
    found = []
    for place in sorted(kept, key=lambda place: place.stat().st_mtime_ns, reverse=True):
        try:
            descriptor.verify(
                (place / "descriptor").read_text(encoding="ascii", errors="replace"), signer.public
            )
        except (
            VerificationError
        ):  # signed under an identity that this node had before: no asker would believe it
            continue
        masked = table.load(place, signer)
        said = masked.descriptor
        key = oprf.derive_key(seed, table.key_info(said.predicate, said.dataset, said.epoch), Mode.VOPRF)
        if said.dataset == dataset and oprf.public_key(key).hex() == said.public:
            found.append(_Kept(Table(masked, key), place))
    return found


def rows(protocol: str, held: HeldDataset, params: Params) -> int:
    """Records of the table a request names. Refuses one that is not published, or not any more."""
    return _table(protocol, held, params).descriptor.records


def bucket_provider(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    """The provider's party of ``verify.bucket.v1``."""
    found = _table(BUCKET, held, params)
    return bucket.provider(found, sizes.consumer, rng, held.verification.signer)


def private_provider(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    """The provider's party of ``verify.private.v1``."""
    found, signer = _table(PRIVATE, held, params), held.verification.signer
    return private.provider(found, sizes.consumer, params["fetch"], rng, signer, executor=executor)


def download_provider(
    held: HeldDataset, params: Params, sizes: Sizes, rng: Rng, executor: Executor | None
) -> Party[None]:
    """The provider's party of ``verify.download.v1``."""
    found, signer = _table(DOWNLOAD, held, params), held.verification.signer
    return download.provider(found, sizes.consumer, params["fetch"], rng, signer)


PROVIDERS: Final = {BUCKET: bucket_provider, PRIVATE: private_provider, DOWNLOAD: download_provider}


def _table(protocol: str, held: HeldDataset, params: Params) -> Table:
    name, published = held.dataset.id, held.verification.by_id
    now = {one.descriptor.predicate: one for one in held.verification.current.values()}
    if params["predicate"] not in now:
        known = ", ".join(now) or "none"
        raise Refused(
            f"dataset {name!r} does not answer this predicate",
            rule="predicate",
            field="params.predicate",
            owner="the node's operator",
            fix=f"ask one that is published: {known}",
        )
    if protocol == DOWNLOAD and not (held.dataset.verified and held.dataset.verified.download):
        raise Refused(
            f"dataset {name!r} does not give its masked tables away",
            rule="download",
            field="operation",
            owner="the node's operator",
            fix="ask in bucket or private mode",
        )
    found = published.get(params["table"])
    wanted = None if found is None else operation.parameters(protocol, found.descriptor, found.id)
    same = ("predicate", "columns", "shape")
    if found is None or wanted is None or any(params[one] != wanted[one] for one in same):
        new = now[params["predicate"]]
        raise ParameterError(
            f"the table does not answer any more: it was replaced by {new.id} (version {new.descriptor.version!r}, key"
            f" epoch {new.descriptor.epoch}); read the catalogue again"
        )
    return found


def _kept(directory: Path | None, name: str) -> bytes:
    """32 random bytes, the same at every start."""
    if directory is None:
        return secrets.token_bytes(32)
    path = directory / name
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            temporary = path.with_name(f"{name}.{secrets.token_hex(4)}.tmp")
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(secrets.token_bytes(32))
                file.flush()
                os.fsync(file.fileno())
            os.link(temporary, path)  # who comes second takes the first one's
            temporary.unlink()
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"cannot keep verification's secrets in {directory}: {error.strerror}") from error
    if len(data) != 32:
        raise StoreError(f"{path} does not hold 32 bytes: restore it from a back-up")
    return data
