"""Messages and their frames: a kind plus named NumPy columns, and the exact bytes that represent them.

A frame is a canonical header (JSON: version, job, run, turn, sender's role, whether it ends the turn and whether
the turn releases output, kind, and name, dtype and shape of each column) followed by the raw little-endian bytes
of the columns, in the header's order. A receiver states the kind, dtypes and shapes it will take, and refuses
by the header alone, before it allocates a body.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trustcompute.errors import LocalProtocolError, RemoteProtocolError, VerificationError
from trustcompute.primitives import canonical

Array = npt.NDArray[Any]

FRAME_VERSION: Final = 1
MAX_HEADER: Final = 4096  # sixteen columns of the longest names and shapes take 1.5 KiB
MAX_COLUMNS: Final = 16
MAX_DIMENSIONS: Final = 3
MAX_BODY: Final = 2**40  # 10^10 rows of 100 bytes: a larger message is cut into runs
MAX_TURN: Final = 2**20
DTYPES: Final = ("u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8")

_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}\Z")
_FIELDS = frozenset({"v", "job", "run", "turn", "from", "last", "releases", "kind", "columns"})
_JOB = re.compile(r"[0-9a-f]{32}\Z")


@dataclass(frozen=True, slots=True)
class Column:
    """What a receiver accepts for a column: a dtype of ``DTYPES`` and, per dimension, an exact or a largest length."""

    dtype: str
    shape: tuple[int | AtMost, ...]

    def admits(self, dtype: str, shape: tuple[int, ...]) -> bool:
        return (
            dtype == self.dtype
            and len(shape) == len(self.shape)
            and all(
                got <= want.length if isinstance(want, AtMost) else got == want
                for got, want in zip(shape, self.shape, strict=True)
            )
        )

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(str(length) for length in self.shape)}]"


@dataclass(frozen=True, slots=True)
class AtMost:
    """A dimension whose length the receiver cannot know beforehand, but can bound."""

    length: int

    def __str__(self) -> str:
        return f"≤{self.length}"


@dataclass(frozen=True, slots=True)
class Message:
    """A kind and its named columns: any number of rows each, dtypes of ``DTYPES``, at most three dimensions."""

    kind: str
    columns: Mapping[str, Array]

    def __getitem__(self, column: str) -> Array:
        return self.columns[column]


@dataclass(frozen=True, slots=True)
class Address:
    """Where a frame belongs: job (32 hex digits), run within the job, turn within the run, and the sender's role."""

    job: str
    run: int
    turn: int
    sender: str


@dataclass(frozen=True, slots=True)
class Header:
    """A parsed frame header. ``last``: the turn ends here; ``releases``: its turn lets the peer compute output."""

    address: Address
    last: bool
    releases: bool
    kind: str
    columns: tuple[tuple[str, str, tuple[int, ...]], ...]  # name, dtype, shape

    @property
    def body_size(self) -> int:
        return sum(int(dtype[1]) * math.prod(shape) for _, dtype, shape in self.columns)


@dataclass(frozen=True, slots=True)
class Frame:
    """The bytes of one message: its header, its body as buffers to be sent one after the other, and their digest."""

    header: bytes
    body: tuple[memoryview, ...]
    digest: bytes

    @property
    def size(self) -> int:
        return len(self.header) + sum(part.nbytes for part in self.body)


def frame_digest(header: bytes, body: Iterable[memoryview]) -> bytes:
    """SHA-256 of the header's length (4 bytes, big-endian), the header and the body."""
    digest = hashlib.sha256(len(header).to_bytes(4, "big") + header)
    for part in body:
        digest.update(part)
    return digest.digest()


def encode(message: Message, address: Address, *, last: bool, releases: bool) -> Frame:
    """The frame of a message. Raises ``LocalProtocolError`` for what no receiver would take."""
    columns, body = [], []
    for name, values in message.columns.items():
        dtype = values.dtype.str[1:]
        if dtype not in DTYPES or values.ndim > MAX_DIMENSIONS or not _NAME.match(name):
            raise LocalProtocolError(f"column {name!r} of {message.kind!r} has no wire form ({values.dtype})")
        columns.append([name, dtype, list(values.shape)])
        little_endian = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
        body.append(memoryview(little_endian.reshape(-1).view(np.uint8)))
    header = canonical.dumps(
        {
            "v": FRAME_VERSION,
            "job": address.job,
            "run": address.run,
            "turn": address.turn,
            "from": address.sender,
            "last": last,
            "releases": releases,
            "kind": message.kind,
            "columns": columns,
        }
    )
    if len(columns) > MAX_COLUMNS or len(header) > MAX_HEADER or not _NAME.match(message.kind):
        raise LocalProtocolError(f"message {message.kind!r} has too many columns or too long a name")
    return Frame(header, tuple(body), frame_digest(header, body))


def parse_header(raw: bytes) -> Header:
    """Parse and bound a header from a peer. Raises ``RemoteProtocolError``."""
    try:
        return _header(canonical.loads_canonical(raw, limit=MAX_HEADER))
    except (VerificationError, KeyError, TypeError, ValueError) as error:
        raise RemoteProtocolError("the peer sent a frame whose header is not in the agreed form") from error


def _header(document: Any) -> Header:
    if set(document) != _FIELDS or document["v"] != FRAME_VERSION:
        raise ValueError("fields")
    if type(document["last"]) is not bool or type(document["releases"]) is not bool:
        raise ValueError("flags")
    address = Address(document["job"], document["run"], document["turn"], document["from"])
    if not _JOB.match(address.job) or not _NAME.match(address.sender) or not _NAME.match(document["kind"]):
        raise ValueError("names")
    if not all(type(number) is int and 0 <= number < MAX_TURN for number in (address.run, address.turn)):
        raise ValueError("turn")
    if len(document["columns"]) > MAX_COLUMNS:
        raise ValueError("columns")
    columns = tuple(_column(*column) for column in document["columns"])
    header = Header(address, document["last"], document["releases"], document["kind"], columns)
    if len({name for name, _, _ in header.columns}) != len(header.columns) or header.body_size > MAX_BODY:
        raise ValueError("body")
    return header


def _column(name: str, dtype: str, shape: list[int]) -> tuple[str, str, tuple[int, ...]]:
    if not _NAME.match(name) or dtype not in DTYPES or len(shape) > MAX_DIMENSIONS:
        raise ValueError("column")
    if not all(type(length) is int and 0 <= length <= MAX_BODY for length in shape):
        raise ValueError("shape")
    return name, dtype, tuple(shape)


def decode(header: Header, body: memoryview) -> Message:
    """Cut a body of exactly ``header.body_size`` bytes into the columns; no copy."""
    columns, start = {}, 0
    for name, dtype, shape in header.columns:
        end = start + int(dtype[1]) * math.prod(shape)
        columns[name] = np.frombuffer(body[start:end], dtype="<" + dtype).reshape(shape)
        start = end
    return Message(header.kind, columns)
