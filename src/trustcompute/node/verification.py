"""Verification at a node: the holder's published predicates, their tables, and the provider's parties.

Called by ``dataset`` (tables are built or loaded when the node starts) and ``computation``. A directory of a
dataset's verification holds ``seed`` (secret: keys of all predicates and epochs come from it), ``place`` (public:
decides buckets) and a directory for each table. Without one everything lives as long as the node.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from trustcompute import tables, verification
from trustcompute.errors import ParameterError, Refused, StoreError
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.party import Party
from trustcompute.verification import bucket, operation, private, table, truth
from trustcompute.verification.consent import Consents
from trustcompute.verification.operation import BUCKET, PRIVATE
from trustcompute.verification.table import LEAST_IN_BUCKET, About, Table

if TYPE_CHECKING:
    from trustcompute.node.dataset import HeldDataset


@dataclass(frozen=True)
class Published:
    """What may be verified of a dataset: a closed list.

    predicates: texts as ``verification.parse`` takes them. subject: the key columns that name a record. directory:
    where tables and their secrets are kept. epoch: of the keys; counted up to make all tables anew under other ones.
    least_in_bucket: records that a bucket of bucket mode holds at least.
    consent: whether every question takes a token of the subject's (``verification.consent``).
    """

    predicates: Sequence[str]
    subject: str | Sequence[str]
    directory: Path | str | None = None
    epoch: int = 1
    least_in_bucket: int = LEAST_IN_BUCKET
    consent: bool = False

    def __post_init__(self) -> None:
        texts = [str(verification.parse(text)) for text in self.predicates]
        if not texts or len(set(texts)) < len(texts):
            raise ParameterError("a dataset publishes one or more predicates, each once")

    @property
    def key(self) -> tuple[str, ...]:
        return (self.subject,) if isinstance(self.subject, str) else tuple(self.subject)


@dataclass(frozen=True, eq=False)
class Tables:
    """The tables of a dataset, by the id of their descriptor. consents: takes tokens, where questions need them."""

    by_id: dict[str, Table]
    signer: SigningKey = field(repr=False)
    consents: Consents | None = None

    def entries(self) -> list[dict[str, Any]]:
        """For the catalogue."""
        return [
            {
                "text": one.descriptor.predicate,
                "descriptor": one.masked.token,
                "consent": self.consents is not None,
            }
            for one in self.by_id.values()
        ]


def held_tables(
    published: Published,
    dataset: str,
    version: str,
    source: tables.Table,
    signer: SigningKey,
    *,
    casefold: bool = False,
    executor: Executor | None = None,
) -> Tables:
    """Build or load every table. Raises ``InputError``, ``StoreError``, ``VerificationError`` when the node starts."""
    directory = None if published.directory is None else Path(published.directory)
    seed, place = _kept(directory, "seed"), _kept(directory, "place")
    found = {}
    for text in published.predicates:
        predicate = verification.parse(text)
        decided = truth.decide(source, published.key, predicate, casefold=casefold, executor=executor)
        about = About(
            dataset=dataset,
            version=version,
            subject=published.key,
            predicate=predicate,
            place=place,
            epoch=published.epoch,
        )
        built = table.build(
            about,
            decided,
            seed,
            signer,
            directory=directory,
            least_in_bucket=published.least_in_bucket,
            executor=executor,
        )
        found[built.id] = built
    return Tables(found, signer, consents_of(published, dataset, seed) if published.consent else None)


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


PROVIDERS: Final = {BUCKET: bucket_provider, PRIVATE: private_provider}


def _table(protocol: str, held: HeldDataset, params: Params) -> Table:
    name, published = held.dataset.id, held.verification.by_id
    if params["predicate"] not in {one.descriptor.predicate for one in published.values()}:
        known = ", ".join(one.descriptor.predicate for one in published.values()) or "none"
        raise Refused(
            f"dataset {name!r} does not answer this predicate",
            rule="predicate",
            field="params.predicate",
            owner="the node's operator",
            fix=f"ask one that is published: {known}",
        )
    found = published.get(params["table"])
    wanted = None if found is None else operation.parameters(protocol, found.descriptor, found.id)
    same = ("predicate", "columns", "shape")
    if found is None or wanted is None or any(params[one] != wanted[one] for one in same):
        raise ParameterError("the table was replaced by another version: read the catalogue again")
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
