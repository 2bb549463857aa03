"""The small documents a session and a node exchange beside the frames: canonical JSON, parsed strictly, bounded."""

from __future__ import annotations

from fractions import Fraction
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from trustcompute.broker.grant import MAX_CHAIN
from trustcompute.errors import RemoteProtocolError, VerificationError
from trustcompute.primitives import canonical
from trustcompute.primitives.signing import MAX_TOKEN

MAX_DOCUMENT: Final = 1024 * 1024

Job = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Name = Annotated[str, Field(min_length=1, max_length=256)]
Token = Annotated[str, Field(max_length=MAX_TOKEN)]
GrantToken = Annotated[str, Field(max_length=MAX_CHAIN)]  # of one grant, or of a chain of delegated ones
Count = Annotated[int, Field(ge=0, le=2**53 - 1)]


class Document(BaseModel):
    """A document of the node's protocol. Parsing raises ``RemoteProtocolError`` naming the field that is wrong."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    @classmethod
    def parse(cls, body: bytes) -> Self:
        try:
            return cls.model_validate(canonical.loads(body, limit=MAX_DOCUMENT))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise RemoteProtocolError(
                f"{cls.__name__}.{where} is not in the agreed form: {first['msg']}"
            ) from None
        except VerificationError as error:
            raise RemoteProtocolError(f"{cls.__name__} is not in the agreed form: {error}") from error

    def encode(self) -> bytes:
        return canonical.dumps(self.model_dump(mode="json"))


class CatalogRequest(Document):
    grant: GrantToken


class ChangedSince(Document):
    """How many entries of a changing table came and left since an earlier version, ``base``."""

    base: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    added: Count
    removed: Count


class Changing(Document):
    """A table that is followed: which key its values are of, the version's id, and earlier ones that are kept."""

    lineage: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    table: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    versions: Annotated[list[ChangedSince], Field(max_length=16)]


class KeyChoice(Document):
    """Columns one may match on, their key specification, how many distinct keys there are, the id of the evaluated
    table where lookups are offered, and its versions where runs over changes are."""

    columns: Annotated[list[Name], Field(min_length=1, max_length=16)]
    spec: Annotated[str, Field(max_length=8192)]
    distinct: Count
    table: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    changing: Changing | None = None


class ColumnEntry(Document):
    """A column: its name and logical type."""

    name: Annotated[str, Field(max_length=1024)]
    type: Annotated[str, Field(max_length=4096)]


class UnitEntry(Document):
    """The holder's privacy unit. known: values by column that are public knowledge."""

    column: Name | None
    groups: Annotated[int, Field(ge=1, le=2**31)]
    rows_per_group: Annotated[int, Field(ge=1, le=2**31)]
    known: dict[Name, Annotated[list[str | int | bool], Field(max_length=10_000)]]


class PredicateEntry(Document):
    """What may be verified: the predicate's canonical text, and the signed descriptor of its table.

    earlier: descriptors of tables that were replaced by it and still answer. consent: whether each question takes a
    consent of the subject's."""

    text: Annotated[str, Field(min_length=1, max_length=128)]
    descriptor: Token
    earlier: Annotated[list[Token], Field(max_length=8)] = []
    consent: bool = False


class LabelEntry(Document):
    """A column that may be learnt of keys that match: what its values are, and how many bytes one may take."""

    name: Name
    kind: Annotated[str, Field(max_length=32)]
    width: Annotated[int, Field(ge=1, le=4096)]


class ValueEntry(Document):
    """A column that may be added up, and the bounds of what one key adds."""

    column: Name
    low: Annotated[str, Field(max_length=64)]
    high: Annotated[str, Field(max_length=64)]
    scale: Annotated[int, Field(ge=1, le=2**40)]


class GroupsEntry(Document):
    """A column to group by, and the groups that may be asked for."""

    column: Name
    labels: Annotated[list[str | int | bool], Field(min_length=1, max_length=64)]


class SumsEntry(Document):
    """What may be added up over keys that both sides hold, and the least group that must be asked for."""

    values: Annotated[list[ValueEntry], Field(max_length=16)]
    by: Annotated[list[GroupsEntry], Field(max_length=64)]
    min_group: Annotated[int, Field(ge=1, le=2**31)]


class CatalogEntry(Document):
    """A dataset as its holder describes it: names, kinds and counts, no values but those of public knowledge."""

    id: Name
    version: Name
    classification: Name
    grade: Name
    personal: bool
    columns: Annotated[list[ColumnEntry], Field(max_length=4096)]
    keys: Annotated[list[KeyChoice], Field(max_length=64)]
    unit: UnitEntry | None = None
    predicates: Annotated[list[PredicateEntry], Field(max_length=64)] = []
    sums: SumsEntry | None = None
    statistics: Token | None = None
    aggregates: Annotated[list[Name], Field(max_length=4096)] = []
    vector: Name | None = None
    labels: Annotated[list[LabelEntry], Field(max_length=64)] = []
    padded: bool = False  # the numbers of distinct keys are what the sets are filled up to


class Catalog(Document):
    """certificate: of the node (PEM), whose key signs its log and receipts."""

    certificate: Annotated[str, Field(max_length=64 * 1024)]
    operations: Annotated[list[Name], Field(max_length=256)]
    datasets: Annotated[list[CatalogEntry], Field(max_length=1024)]


class QuoteRequest(Document):
    grant: GrantToken
    operation: Name
    dataset: Name
    params: dict[str, Any]
    rows: Count


class Quote(Document):
    """What a job may cost. usage: the most it may use, by unit; price: exact, in minor units of the currency.

    left: what is left of the grant's limits, by unit and span (``total``, ``per_call``, ``per_day``).
    """

    usage: dict[Name, int | str]
    price: Annotated[str, Field(pattern=r"^[0-9]{1,40}(/[1-9][0-9]{0,40})?$")]
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] | None
    left: dict[Name, dict[Name, Name]]

    @property
    def amount(self) -> Fraction:
        """The price, exact, in minor units."""
        return Fraction(self.price)


class Opening(Document):
    """What begins a job. rows: how many the provider has by its catalogue; where that has changed nothing begins."""

    grant: GrantToken
    request: Token
    rows: Count


class JobRequest(Document):
    job: Job


class CountersignRequest(Document):
    token: Token


class TurnDescriptor(Document):
    """Which turn it is. opening: with the first turn of a run, and only with that."""

    job: Job
    run: Annotated[int, Field(ge=0, lt=2**20)]
    turn: Annotated[int, Field(ge=0, lt=2**20)]
    opening: Opening | None = None

    @model_validator(mode="after")
    def _opened_first(self) -> Self:
        if (self.turn == 0) != (self.opening is not None):
            raise ValueError("the first turn of a run brings the signed request, and no other does")
        return self
