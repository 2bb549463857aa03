"""Common grants by name, each as narrow as its use allows: ``Grant.preset``, ``trustcompute grant new``.

A preset settles operations with their bounds, output forms, limits and right; whom, what and what for is the caller's.
Operations are named by id only; those a node does not have cannot be asked for there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from trustcompute.broker.grant import Bounds, Limit, Right
from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import OutputForm

KEYS: Final = 100_000  # that the grantee may bring to a call; more is a decision of its own
WHOLE: Final = 10**12  # one unit of ρ or ε


@dataclass(frozen=True)
class Preset:
    """What a name stands for. use: in words, when to take it."""

    use: str
    operations: Mapping[str, Bounds]
    outputs: tuple[OutputForm, ...]
    limits: Mapping[str, Limit] = field(default_factory=dict)
    right: Right = "process"
    depth: int = 0


_FEW: Final = {"calls": Limit(total=100, per_day=10)}
_MATCHING: Final = ("psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1")

PRESETS: Final[Mapping[str, Preset]] = {
    "match-count": Preset(
        "how many keys both sides hold, not which, of no fewer than 100",
        {"psi.ecdh.v1": Bounds(min_rows=100, max_rows=KEYS)},
        (OutputForm.COUNT,),
        _FEW,
    ),
    "match-rows": Preset(
        "which of its own keys the grantee finds in the dataset",
        dict.fromkeys(_MATCHING, Bounds(max_rows=KEYS)),
        (OutputForm.MATCHED_IDS,),
        _FEW,
    ),
    "lookup": Preset(
        "many small questions whether a key is in the dataset",
        {"psi.lookup.v1": Bounds(max_rows=1000)},
        (OutputForm.MATCHED_IDS,),
        {"calls": Limit(total=10_000, per_day=1000), "rows": Limit(total=KEYS)},
    ),
    "statistics": Preset(
        "noisy aggregates by groups of ten and more, ρ = 1 in all and 1/10 a call",
        {"dp.release.v1": Bounds(min_group=10)},
        (OutputForm.DP_RELEASE,),
        _FEW | {"rho": Limit(total=WHOLE, per_call=WHOLE // 10)},
    ),
    "custodian": Preset(
        "grants to others, once removed, and computes nothing itself",
        dict.fromkeys(_MATCHING, Bounds(max_rows=KEYS)),
        (OutputForm.MATCHED_IDS, OutputForm.COUNT),
        _FEW,
        "hold",
        1,
    ),
}


def preset(name: str) -> Preset:
    """Raises ``ParameterError`` naming those that exist."""
    found = PRESETS.get(name)
    if found is None:
        raise ParameterError(f"there is no preset {name!r}; there are: {', '.join(PRESETS)}")
    return found
