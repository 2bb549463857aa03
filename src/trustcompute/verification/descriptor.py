"""The descriptor of a table: what its holder promises about it, signed. Everything an asker checks is checked against
it.

Called by ``table``, the parties and the node, whose catalogue shows it. It names the data (dataset, version), the
predicate, the OPRF's public key and epoch, both layouts by their Merkle roots, the hint by its hash and the seeds of
what is public: a holder that answers from anything else than this one table contradicts its own signature.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trustcompute.errors import VerificationError
from trustcompute.primitives import signing
from trustcompute.primitives.signing import SigningKey, TokenError, VerifyKey
from trustcompute.verification import lwe
from trustcompute.verification.layout import MAX_BUCKET_BITS, Shape

TYPE: Final = "tc-verification+jwt"
SUITE: Final = "tc-verify/1 ristretto255-SHA512 SHA-256 SimplePIR-1408"

Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Label = Annotated[str, Field(min_length=1, max_length=256)]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)


class Layout(_Document):
    """Columns of equal length and the root of the Merkle tree (RFC 9162 hashing) over them."""

    columns: Annotated[int, Field(ge=1, le=2**MAX_BUCKET_BITS)]
    capacity: Annotated[int, Field(ge=1, le=2**20)]
    root: Hex32

    @property
    def shape(self) -> Shape:
        return Shape(self.columns, self.capacity)


class Descriptor(_Document):
    """records: distinct keys; epoch: of the OPRF key; public: its public key; salt: of the tags; place: salt of the
    buckets, the same for all predicates of the dataset; seed: of the public matrix; splitters, hint: their
    SHA-256."""

    suite: Label
    dataset: Label
    version: Label
    subject: Annotated[list[Label], Field(min_length=1, max_length=16)]
    predicate: Annotated[str, Field(min_length=1, max_length=128)]
    spec: Annotated[str, Field(max_length=8192)]
    elements: Annotated[str, Field(max_length=8192)] | None
    records: Annotated[int, Field(ge=0, le=2**40)]
    epoch: Annotated[int, Field(ge=1, le=2**32)]
    revision: Annotated[int, Field(ge=0, le=2**32)]
    public: Hex32
    salt: Hex32
    place: Hex32
    buckets: Layout
    columns: Layout
    splitters: Hex32
    seed: Hex32
    hint: Hex32

    def sign(self, key: SigningKey) -> str:
        return signing.sign(TYPE, self.model_dump(mode="json"), key)


def verify(token: str, key: VerifyKey) -> Descriptor:
    """The descriptor that ``key`` signed. Raises ``VerificationError`` for any other, and for parameters that are not
    ours."""
    try:
        return _checked(signing.verify(token, TYPE, key))
    except TokenError as error:
        raise VerificationError(f"the table's descriptor does not verify: {error}") from error


def read(token: str) -> Descriptor:
    """What a descriptor says, whoever signed it."""
    try:
        return _checked(signing.parse(token, TYPE).claims)
    except TokenError as error:
        raise VerificationError(f"the table's descriptor cannot be read: {error}") from error


def _checked(claims: dict[str, Any]) -> Descriptor:
    try:
        found = Descriptor.model_validate(claims)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise VerificationError(
            f"the descriptor's {where} is not in the agreed form: {first['msg']}"
        ) from None
    if found.suite != SUITE:
        raise VerificationError(f"the descriptor is of another suite than {SUITE}")
    for layout in (found.buckets, found.columns):
        if layout.columns & (layout.columns - 1):
            raise VerificationError("a layout has a power of two of columns")
    if found.columns.columns > lwe.MAX_COLUMNS or found.columns.shape.length > lwe.MAX_LENGTH:
        raise VerificationError("a table of this shape is larger than any that answers private questions")
    if lwe.noise_margin(found.columns.columns, found.columns.shape.length) <= 1:
        raise VerificationError("a table of this shape could not be decrypted: the noise would be too large")
    return found
