"""What an aggregate is about: one document that every party sees, hashes and signs before anything moves.

Called by ``encoding`` (a table becomes integers), by the schemes (how large a sum can become) and by ``operation`` (the
parameters of a request). Two parties with different specifications have different digests and never mix.

A value x is counted as the integer round(x·scale) - shift, where shift, the middle of the bounds, is public:
squares stay small and a variance does not cancel. A slot is one integer of the vector that is added up.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import prod
from typing import Any, Final, Literal

from trustcompute.aggregation.noise import Noise
from trustcompute.errors import ParameterError
from trustcompute.primitives import canonical
from trustcompute.tables.fixed import Bounds, Label

STATISTICS: Final = ("count", "sum", "mean", "variance")
GUARD_BITS: Final = (
    8  # of a slot, beside what the largest sum needs: a sum found there is a fault, never a value
)
WORD_BITS: Final = 64  # ``masked`` adds modulo 2^64
SPARE_BITS: Final = (
    16  # of these: a mask that was not taken off shows there with probability 1 - 2^-16 a slot
)
MAX_SLOTS: Final = 10**8
MAX_GROUPS: Final = 10**6  # of a named domain: its labels travel with the request
MAX_PARTIES: Final = 255
MAX_ROWS: Final = 2**40
MAX_COLUMNS: Final = 64
MAX_SPEC: Final = 16_000  # bytes of its document over nodes: a signed request holds it
ROUNDING: Final = "half to even"
_DOMAIN: Final = b"trustcompute aggregation specification v1\n"


@dataclass(frozen=True)
class Slot:
    """One integer a group. reach: the largest contribution of one row."""

    statistic: str  # rows, sum, squares, weight, weighted, bucket
    column: str
    place: int
    reach: int


@dataclass(frozen=True, eq=False)
class Spec:
    """An aggregate.

    columns:     what is added up, with bounds that every value keeps: one that does not is an error, never clipped.
    statistics:  of ``count``, ``sum``, ``mean``, ``variance``. A count always comes along.
    by:          columns to group by, each with its whole agreed domain; all combinations are groups.
    weight:      one of ``columns``: then sum and mean are Σwx and Σwx/Σw, and there is no variance.
    histograms:  column -> ascending edges: rows with edge[i] <= value < edge[i + 1], the last interval closed.
    max_parties, max_rows: the most contributors, and rows of each: they bound every sum.
    min_parties: the fewest whose sum may be opened; survivor sets must differ by as many.
    noise:       differential privacy inside (``Noise``).
    reveal:      who receives the sum: the ``aggregator``, or ``everyone``, who then can verify it.
    length:      instead of a table each party brings a vector of this many values, within ``columns["value"]``.
    """

    columns: Mapping[str, Bounds] = field(default_factory=dict)
    statistics: Sequence[str] = ("count", "sum", "mean")
    by: Mapping[str, Sequence[Label]] = field(default_factory=dict)
    weight: str | None = None
    histograms: Mapping[str, Sequence[int | str]] = field(default_factory=dict)
    max_parties: int = 16
    max_rows: int = 10**6
    min_parties: int = 3
    noise: Noise | None = None
    reveal: Literal["aggregator", "everyone"] = "aggregator"
    length: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "columns", dict(self.columns))
        object.__setattr__(self, "statistics", tuple(self.statistics))
        object.__setattr__(self, "by", {name: tuple(values) for name, values in self.by.items()})
        object.__setattr__(
            self, "histograms", {name: tuple(edges) for name, edges in self.histograms.items()}
        )
        self._check_counts()
        self._check_columns()
        self._check_groups()
        if not 1 <= self.slots <= MAX_SLOTS:
            raise ParameterError(f"an aggregate has 1 to {MAX_SLOTS:,} slots, not {self.slots:,}")
        if self.payload_bits > WORD_BITS - SPARE_BITS:
            raise ParameterError(
                f"the largest sum needs {self.payload_bits} bits, and {WORD_BITS - SPARE_BITS} are there: lower a"
                " scale, max_rows or max_parties, narrow the bounds, or leave the variance out"
            )

    def _check_counts(self) -> None:
        for name, low, high in (
            ("max_parties", 2, MAX_PARTIES),
            ("max_rows", 1, MAX_ROWS),
            ("min_parties", 2, self.max_parties),
        ):
            value = getattr(self, name)
            if type(value) is not int or not low <= value <= high:
                raise ParameterError(f"{name} must be an integer from {low} to {high}, not {value!r}")
        if self.reveal not in ("aggregator", "everyone"):
            raise ParameterError(f"reveal must be 'aggregator' or 'everyone', not {self.reveal!r}")

    def _check_columns(self) -> None:
        unknown = set(self.statistics) - set(STATISTICS)
        if unknown:
            raise ParameterError(f"statistics are of {', '.join(STATISTICS)}, not {sorted(unknown)[0]!r}")
        if len(self.columns) > MAX_COLUMNS or not all(
            isinstance(one, Bounds) for one in self.columns.values()
        ):
            raise ParameterError(f"columns map at most {MAX_COLUMNS} names to aggregation.Bounds")
        if self.weight is not None and (self.weight not in self.columns or len(self.columns) < 2):
            raise ParameterError(f"the weight {self.weight!r} must be one of the columns, beside another")
        if self.weight is not None and ("variance" in self.statistics or self.columns[self.weight].least < 0):
            raise ParameterError("weights have bounds of 0 or more, and there is no weighted variance")
        for name, edges in self.histograms.items():
            if name not in self.columns:
                raise ParameterError(f"the histogram of {name!r} needs bounds: add it to columns")
            units = [self.columns[name].units(edge) for edge in edges]
            if len(units) < 2 or sorted(set(units)) != units:
                raise ParameterError(f"the edges of {name!r} must be two or more, ascending")
        if self.length is not None and (
            set(self.columns) != {"value"} or self.by or self.histograms or self.weight
        ):
            raise ParameterError("a vector has the one column 'value', and no groups, weights or histograms")
        if self.length is not None and self.noise is not None:
            raise ParameterError("noise is calibrated to rows of tables: a vector takes none")
        if self.length is not None and (type(self.length) is not int or self.length < 1):
            raise ParameterError("a vector's length is an integer of 1 or more")

    def _check_groups(self) -> None:
        for name, values in self.by.items():
            kinds = {type(value) for value in values}
            if len(values) < 1 or len(kinds) != 1 or not kinds <= {str, int, bool}:
                raise ParameterError(
                    f"the domain of {name!r} must list text, integers or booleans, of one kind"
                )
            if len(set(values)) < len(values):
                raise ParameterError(f"the domain of {name!r} names a value twice")
        if self.groups > MAX_GROUPS:
            raise ParameterError(f"named groups are at most {MAX_GROUPS:,}, not {self.groups:,}")

    @property
    def groups(self) -> int:
        return prod(len(values) for values in self.by.values())

    @property
    def layout(self) -> tuple[Slot, ...]:
        """The slots of one group, in order."""
        if self.length is not None:
            return (Slot("sum", "value", 0, self.columns["value"].reach),)
        slots = [Slot("rows", "", 0, 1)]
        weight = self.weight and self.columns[self.weight]
        if weight:
            slots.append(Slot("weight", str(self.weight), 0, weight.most))
        for name, bounds in self.columns.items():
            if name == self.weight:
                continue
            if weight:
                slots.append(Slot("weighted", name, 0, max(weight.most, 1) * bounds.reach))
            elif set(self.statistics) & {"sum", "mean", "variance"}:
                slots.append(Slot("sum", name, 0, bounds.reach))
            if "variance" in self.statistics:
                slots.append(Slot("squares", name, 0, bounds.reach**2))
        slots += [
            Slot("bucket", name, place, 1)
            for name, edges in self.histograms.items()
            for place in range(len(edges) - 1)
        ]
        return tuple(slots)

    @property
    def slots(self) -> int:
        """Integers each party brings: group after group, each as ``layout`` says."""
        return self.groups * len(self.layout) if self.length is None else self.length

    @property
    def payload_bits(self) -> int:
        """⌈log2(2·(K·R·(B·scale)^d + T) + 1)⌉ of the largest slot: K parties, R rows, T the tail of the noise."""
        rows = 1 if self.length is not None else self.max_rows
        tail = 0 if self.noise is None else self.noise.tail(self.max_parties)
        largest = self.max_parties * rows * max(slot.reach for slot in self.layout) + tail
        return (2 * largest).bit_length()

    @property
    def slot_bits(self) -> int:
        """Of schemes that pack slots: the payload and ``GUARD_BITS``."""
        return self.payload_bits + GUARD_BITS

    @property
    def named(self) -> tuple[str, ...]:
        """Columns of a table that are read."""
        return tuple(sorted({*self.columns, *self.by})) if self.length is None else ("value",)

    def threshold(self, parties: int) -> int:
        """t ≥ ⌊2K/3⌋ + 1 of K parties: two survivor sets cannot both be signed by t unless a third of all cheat."""
        return max(2 * parties // 3 + 1, self.min_parties)

    def to_document(self) -> dict[str, Any]:
        """Canonical, and the whole meaning: equal documents, equal aggregates."""
        return {
            "columns": [
                [name, str(Fraction(one.least, one.scale)), str(Fraction(one.most, one.scale)), one.scale]
                for name, one in self.columns.items()
            ],
            "statistics": sorted(set(self.statistics) | {"count"}),
            "by": [[name, list(values)] for name, values in self.by.items()],
            "weight": self.weight,
            "histograms": [
                [name, [str(Fraction(edge)) for edge in edges]] for name, edges in self.histograms.items()
            ],
            "max_parties": self.max_parties,
            "max_rows": self.max_rows,
            "min_parties": self.min_parties,
            "noise": None if self.noise is None else self.noise.to_document(),
            "reveal": self.reveal,
            "length": self.length,
            "rounding": ROUNDING,
        }

    @classmethod
    def from_document(cls, document: Any) -> Spec:
        """Raises ``ParameterError`` for what is not a specification in canonical form, naming the member."""
        if not isinstance(document, dict) or set(document) != _MEMBERS:
            raise ParameterError(f"a specification has exactly the members {', '.join(sorted(_MEMBERS))}")
        made = cls(**{name: _member(name, document[name]) for name in _MEMBERS - {"rounding"}})
        for name, value in made.to_document().items():
            if canonical.dumps([value]) != canonical.dumps([document[name]]):
                raise _not_canonical(name)
        return made

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spec) and self.to_document() == other.to_document()

    def __hash__(self) -> int:
        return hash(self.digest)

    @property
    def digest(self) -> str:
        """SHA-256 (hex): what every party signs."""
        return hashlib.sha256(_DOMAIN + canonical.dumps(self.to_document())).hexdigest()


def _member(name: str, value: Any) -> Any:
    """A member of a document as ``Spec`` takes it."""
    try:
        if type(value) not in _MADE_OF[name]:
            raise TypeError(name)
        if name == "columns":
            return {_text(column): Bounds(low, high, scale) for column, low, high, scale in value}
        if name in ("by", "histograms"):
            return {_text(column): list(values) for column, values in value}
        if name == "statistics":
            return [_text(one) for one in value]
        return Noise.from_document(value) if name == "noise" and value is not None else value
    except (KeyError, TypeError, ValueError):
        raise _not_canonical(name) from None
    except ParameterError as error:
        raise ParameterError(f"{name}: {error}") from error


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("no text")
    return value


def _not_canonical(name: str) -> ParameterError:
    return ParameterError(f"the {name} of the specification of the aggregate are not in canonical form")


_MADE_OF: Final[dict[str, tuple[type, ...]]] = {
    **dict.fromkeys(("columns", "statistics", "by", "histograms"), (list,)),
    **dict.fromkeys(("max_parties", "max_rows", "min_parties"), (int,)),
    **dict.fromkeys(("reveal", "rounding"), (str,)),
    "weight": (str, type(None)),
    "noise": (dict, type(None)),
    "length": (int, type(None)),
}
_MEMBERS: Final = frozenset(_MADE_OF)
