"""Evaluations of a set that changes, under one OPRF key: what both sides of ``psi.delta.v1`` keep from run to run.

Called by ``psi.delta`` and the node. The holder's ``ChangingTable`` has its key, its keys with F_k of each, and the
values of earlier versions; only what came in is evaluated. The asker's ``Followed`` has its own keys with F_k of each,
and the holder's values as it last saw them. Both are written whole or not at all, readable by their owner alone, and
checked when they are read. Unlike ``psi.table``, where other data never meet an old key, values of versions can be
linked here: that is what makes a run over changes possible (docs/protocols/psi-delta.md).
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from trustcompute.errors import ParameterError, StoreError, VerificationError
from trustcompute.primitives import canonical, oprf
from trustcompute.primitives.oprf import Mode, SecretKey
from trustcompute.primitives.rng import Rng
from trustcompute.psi import matching
from trustcompute.psi.matching import U8
from trustcompute.psi.table import WIDTH, found, values_id

FORMAT: Final = 1
DIGEST: Final = 32
KEPT_VERSIONS: Final = 8  # an asker that stayed away for longer receives the whole table again
_MAX_HEAD: Final = 65_536


@dataclass(frozen=True, eq=False)
class Evaluations:
    """F_k of a set. digests: uint8[n, 32], ascending; values: uint8[n, 16], of each of them."""

    digests: U8
    values: U8 = field(repr=False)

    @classmethod
    def none(cls) -> Evaluations:
        return cls(np.empty((0, DIGEST), np.uint8), np.empty((0, WIDTH), np.uint8))

    def known(self, digests: U8) -> npt.NDArray[np.bool_]:
        """Which of these (uint8[n, 32]) are in the set: bool[n]."""
        return matching.positions(digests, self.digests) >= 0

    def moved(self, digests: U8, came: U8) -> Evaluations:
        """Of another set, whose members that are not known have the values ``came``, in their order."""
        at = matching.positions(digests, self.digests)
        values = np.empty((len(digests), WIDTH), np.uint8)
        values[at >= 0] = self.values[at[at >= 0]]
        values[at < 0] = came
        return Evaluations(digests, values)


@dataclass(frozen=True)
class Version:
    """What came into a table and what left it since an earlier one. base: the earlier one's id."""

    base: str
    added: int
    removed: int


@dataclass(frozen=True, eq=False)
class ChangingTable:
    """A holder's table. earlier: values of versions before this one, by id, the oldest first."""

    key: SecretKey
    own: Evaluations
    earlier: Mapping[str, U8] = field(repr=False)

    @cached_property
    def values(self) -> U8:
        """F_k of every key, ascending: uint8[m, 16]."""
        return matching.in_order(self.own.values)[1]

    @cached_property
    def id(self) -> str:
        """Names the values."""
        return values_id(self.values)

    @cached_property
    def lineage(self) -> str:
        """Names the key, whatever the set: its public key."""
        return oprf.public_key(self.key).hex()

    def since(self, base: str) -> tuple[U8, U8]:
        """(what came, what left) since a version, or since there was nothing (an empty name), ascending."""
        old = self.earlier[base] if base else np.empty((0, WIDTH), np.uint8)
        return self.values[~found(self.values, old)], old[~found(old, self.values)]

    @cached_property
    def versions(self) -> list[Version]:
        """All from which there is a way to this one, itself among them."""
        ways = {base: self.since(base) for base in self.earlier} | {
            self.id: (self.values[:0], self.values[:0])
        }
        return [Version(base, len(came), len(left)) for base, (came, left) in ways.items()]

    def next(self, keys: U8, *, executor: Executor | None = None) -> ChangingTable:
        """The table of another set, under the same key. keys: uint8[m, 32], distinct, ascending."""
        fresh = np.ascontiguousarray(keys[~self.own.known(keys)])
        came = oprf.evaluate_inputs(self.key, fresh, Mode.OPRF, executor=executor)[:, :WIDTH]
        made = ChangingTable(self.key, self.own.moved(keys, came), {})
        earlier = dict(self.earlier) | {self.id: self.values}
        earlier.pop(made.id, None)
        return ChangingTable(self.key, made.own, dict(list(earlier.items())[-KEPT_VERSIONS:]))


def new_table(rng: Rng) -> ChangingTable:
    """Of no keys, under a fresh key."""
    return ChangingTable(oprf.generate_key(rng), Evaluations.none(), {})


def kept_table(
    keys: U8, name: str, rng: Rng, directory: Path, *, executor: Executor | None = None
) -> ChangingTable:
    """The table of the set as it is now, from what is kept in ``directory`` under ``name``, and kept there again.

    keys: uint8[m, 32], distinct digests, ascending. Raises ``VerificationError``, ``StoreError``.
    """
    path = directory / f"changing-{hashlib.sha256(name.encode()).hexdigest()[:32]}"
    before = _load_table(path) if path.exists() else None
    if before is not None and np.array_equal(before.own.digests, keys):
        return before
    made = (before or new_table(rng)).next(keys, executor=executor)
    if before is None:  # a version of no keys is none that anybody has
        made = ChangingTable(made.key, made.own, {})
    head = {"versions": [[base, len(values)] for base, values in made.earlier.items()]}
    parts = {"key": np.frombuffer(made.key.to_bytes(), np.uint8), "digests": made.own.digests}
    parts |= {"values": made.own.values, "earlier": np.concatenate([made.values[:0], *made.earlier.values()])}
    _write(path, head, parts)
    return made


def _load_table(path: Path) -> ChangingTable:
    head, parts = _read(path)
    try:
        own = Evaluations(_rows(parts["digests"], DIGEST), _rows(parts["values"], WIDTH))
        rest, earlier = _rows(parts["earlier"], WIDTH), {}
        for base, count in head["versions"]:
            earlier[base], rest = rest[:count], rest[count:]
        made = ChangingTable(SecretKey(parts["key"].tobytes()), own, earlier)
    except (KeyError, ValueError, TypeError, ParameterError) as error:
        raise VerificationError(f"{path} does not hold a changing table: remove it") from error
    if len(rest) or len(own.digests) != len(own.values):
        raise VerificationError(f"{path} does not hold a changing table: remove it")
    return made


@dataclass(frozen=True, eq=False)
class Followed:
    """What an asker keeps between runs. lineage: of the holder's key; own: its set as of the last run; table: the
    holder's values then, ascending, and their id (empty before the first run); run: how many there were."""

    lineage: str
    secret: bytes = field(repr=False)
    own: Evaluations
    table: U8 = field(repr=False)
    table_id: str
    run: int

    @classmethod
    def none(cls, lineage: str, secret: bytes) -> Followed:
        return cls(lineage, secret, Evaluations.none(), np.empty((0, WIDTH), np.uint8), "", 0)

    def commitment(self) -> str:
        """Binds the set of the last run, and hides it: 64 hex digits."""
        return commitment(self.secret, self.run, self.own.digests)


def commitment(secret: bytes, run: int, digests: U8) -> str:
    """To a set, as of a run. secret: 32 bytes; the salt of each run is derived from it."""
    salt = hashlib.sha256(b"trustcompute delta salt v1\n" + secret + run.to_bytes(8, "big")).digest()
    made = hashlib.sha256(b"trustcompute delta set v1\n" + salt + len(digests).to_bytes(8, "big"))
    made.update(np.ascontiguousarray(digests))
    return made.hexdigest()


def save_followed(path: Path, one: Followed) -> None:
    """Raises ``StoreError``."""
    head = {"lineage": one.lineage, "table": one.table_id, "run": one.run, "set": one.commitment()}
    parts = {"secret": np.frombuffer(one.secret, np.uint8), "digests": one.own.digests}
    _write(path, head, parts | {"values": one.own.values, "table": one.table})


def load_followed(path: Path) -> Followed:
    """Raises ``VerificationError`` for what does not fit what was committed to, ``StoreError``."""
    head, parts = _read(path)
    try:
        own = Evaluations(_rows(parts["digests"], DIGEST), _rows(parts["values"], WIDTH))
        table = _rows(parts["table"], WIDTH)
        secret = parts["secret"].tobytes()
        one = Followed(head["lineage"], secret, own, table, head["table"], head["run"])
        fits = len(own.digests) == len(own.values) and one.commitment() == head["set"]
    except (KeyError, ValueError, TypeError) as error:
        raise VerificationError(f"{path} does not hold an earlier set: remove it to begin anew") from error
    if not fits or (one.table_id and values_id(table) != one.table_id):
        raise VerificationError(
            f"{path} does not hold the set that was committed to: remove it to begin anew"
        )
    return one


def _rows(data: U8, width: int) -> U8:
    return data.reshape(-1, width)


def _write(path: Path, head: dict[str, Any], parts: Mapping[str, U8]) -> None:
    """One file: a head that names the parts and their hash, the parts after it."""
    body = b"".join(np.ascontiguousarray(part).tobytes() for part in parts.values())
    described = head | {
        "format": FORMAT,
        "parts": [[name, part.nbytes] for name, part in parts.items()],
        "hash": hashlib.sha256(body).hexdigest(),
    }
    raw = canonical.dumps(described)
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(len(raw).to_bytes(4, "big") + raw + body)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise StoreError(f"cannot keep {path}: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> tuple[dict[str, Any], dict[str, U8]]:
    try:
        data = memoryview(path.read_bytes())
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    size = int.from_bytes(data[:4], "big")
    try:
        head = canonical.loads(bytes(data[4 : 4 + size]), limit=_MAX_HEAD)
        body, parts, at = data[4 + size :], {}, 0
        for name, length in head["parts"]:
            parts[name] = np.frombuffer(body[at : at + length], np.uint8)
            at += length
        whole = (
            head["format"] == FORMAT and at == len(body) and head["hash"] == hashlib.sha256(body).hexdigest()
        )
    except (VerificationError, KeyError, TypeError, ValueError) as error:
        raise VerificationError(f"{path} is not in the agreed form: remove it to begin anew") from error
    if not whole:
        raise VerificationError(f"{path} was altered: remove it to begin anew")
    return head, parts
