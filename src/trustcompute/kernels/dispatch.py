"""Which implementation of the kernels runs: the compiled extension or the reference.

``TRUSTCOMPUTE_KERNELS`` forces one: ``reference`` (Python and gmpy2), ``portable`` (the extension without
the instruction sets it found) or ``native`` (the extension with everything this processor has). Unset, the
extension is used where it can be loaded, else the reference.
"""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, cast, get_args

from trustcompute.errors import KernelError
from trustcompute.kernels.arrays import I8, I64, U8, U32, Column, OkvsShape

Name = Literal["native", "portable", "reference"]
NAMES: tuple[Name, ...] = get_args(Name)
VARIABLE = "TRUSTCOMPUTE_KERNELS"
ABI_VERSION = 3
"""Raised with every change between ``native.py`` and the extension; a stale build is refused."""


@dataclass(frozen=True, slots=True)
class Backend:
    """The implementation in use, the reason, and the instruction sets beyond the compiler's baseline."""

    name: Name
    reason: str
    features: tuple[str, ...] = ()


class Implementation(Protocol):
    """Every kernel, after its arguments were checked (``trustcompute.kernels`` documents each).

    Both implementations give the same bytes, and raise the same errors with the same rows in them.
    """

    def ristretto255_mul(self, points: U8, scalars: U8) -> U8: ...
    def ristretto255_mul_base(self, scalars: U8) -> U8: ...
    def ristretto255_check(self, points: U8) -> None: ...
    def ristretto255_multiscalar_vartime(self, points: U8, scalars: U8) -> U8: ...
    def ristretto255_from_uniform(self, uniform: U8) -> U8: ...
    def ristretto255_hash(self, messages: U8, dst: bytes) -> U8: ...
    def ristretto255_hash_mul(self, messages: U8, dst: bytes, scalars: U8) -> U8: ...
    def ristretto255_hash_blind(self, messages: U8, dst: bytes, scalars: U8) -> U8: ...
    def ristretto255_unblind(self, points: U8, base: U8, scalars: U8) -> U8: ...
    def scalar255_reduce(self, wide: U8) -> U8: ...
    def scalar255_mul(self, a: U8, b: U8) -> U8: ...
    def scalar255_sub(self, a: U8, b: U8) -> U8: ...
    def scalar255_invert(self, scalars: U8) -> U8: ...
    def expand_message_xmd(self, messages: U8, dst: bytes, length: int) -> U8: ...
    def oprf_finalize(self, inputs: U8, elements: U8) -> U8: ...
    def digest_columns(self, prefix: bytes, count: int, columns: Sequence[Column]) -> U8: ...
    def match_rows(self, values: U8, table: U8, salt: bytes) -> I64: ...
    def aes128_ctr(self, keys: U8, blocks: int) -> U8: ...
    def aes128_hash(self, key: bytes, rows: U8) -> U8: ...
    def gf128_mul(self, a: U8, b: U8) -> U8: ...
    def okvs_encode(self, hashes: U8, values: U8, key: bytes, shape: OkvsShape, bins: range) -> U8: ...
    def okvs_decode(self, hashes: U8, table: U8, key: bytes, shape: OkvsShape) -> U8: ...
    def pprf_expand(self, roots: U8, leaves: int, keys: bytes) -> tuple[U8, U8]: ...
    def pprf_puncture(self, sums: U8, points: I64, leaves: int, keys: bytes) -> tuple[U8, U8]: ...
    def code_convolve(self, vector: U8, key: bytes) -> U8: ...
    def code_expand(self, vector: U8, systematic: U8, key: bytes, first: int) -> U8: ...
    def pir_answer(self, database: I8, query: U32) -> U32: ...
    def pir_multiply(self, database: I8, matrix: U32) -> U32: ...
    def word_product(self, matrix: U32, vector: U32) -> U32: ...
    def lwe_product(self, keys: U8, rows: int, secret: U32) -> U32: ...


def load(name: Name) -> tuple[Backend, Implementation]:
    """The named implementation. Raises ``KernelError``, with the reason, where it cannot be used."""
    if name == "reference":
        reference = importlib.import_module("trustcompute.kernels.reference")
        return Backend("reference", "asked for"), cast(Implementation, reference)
    try:
        extension = importlib.import_module("trustcompute.kernels._native")
    except ImportError as error:
        raise KernelError("the native extension is not built, or not for this Python") from error
    built = getattr(extension, "ABI_VERSION", None)
    if built != ABI_VERSION:
        raise KernelError(
            f"the native extension was built for kernel interface {built}, this release needs {ABI_VERSION}:"
            " build it again"
        )
    from trustcompute.kernels.native import Native  # noqa: PLC0415 - needs the extension

    native = Native(use=extension.detect() if name == "native" else 0)
    return Backend(name, "asked for", native.features), native


@functools.cache
def chosen() -> tuple[Backend, Implementation]:
    """What this process uses, decided once, at the first use."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted:
        if wanted not in NAMES:
            raise KernelError(f"{VARIABLE} must be one of {', '.join(NAMES)}, not {wanted!r}")
        try:
            backend, implementation = load(wanted)
        except KernelError as error:
            raise KernelError(f"{VARIABLE} asks for the {wanted} kernels, but {error}") from error
        return Backend(backend.name, f"{VARIABLE} asks for it", backend.features), implementation
    try:
        backend, implementation = load("native")
    except KernelError as error:
        return Backend("reference", str(error)), load("reference")[1]
    return Backend("native", "the extension is built and loads", backend.features), implementation
