"""Which protocol for which sizes, and why: what a person wants to know before a run, printed in one go.

Called by ``psi.intersect`` and ``Session.intersect`` for ``protocol="auto"``. Seconds are those of both parties' work
together, in processes that have run the protocol before. The constants were measured on one kind of machine (2.45 GHz
AMD EPYC, Zen 3, by ``python -m benchmarks psi --task protocol``) and give what was measured there within a quarter;
those of the portable and reference kernels are guesses. What decides is their ratio. The first run of a process takes
``psi.vole`` about 2.5 times as long: its memory comes from the system page by page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from trustcompute import kernels
from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Operation, Params, Sizes
from trustcompute.psi import matching, operation, vole_malicious

Protocol = Literal["auto", "psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1", "psi.vole-malicious.v1"]

BANDWIDTH: Final = 10**9  # bits a second: a data centre's network
SMALL_DOMAIN: Final = 64  # a set that fills a 64th of its key space can be enumerated with 64 such runs
COMPUTATIONAL_BITS: Final = 126
Adversary = Literal["semi-honest", "malicious"]
MALICIOUS: Final = (operation.VOLE_MALICIOUS,)  # what holds against a side that deviates
CHECKED: Final = 1.2  # how much longer psi.vole-malicious.v1 takes than psi.vole.v1
KEYS_DIGEST: Final = "0" * 64  # sizes do not depend on the key specification


@dataclass(frozen=True, slots=True)
class Speed:
    """Seconds of one core: a multiplication on the curve, a run of psi.vole.v1, and what it takes a key."""

    multiplication: float
    vole_run: float
    vole_key: float


SPEEDS: Final = {
    "native": Speed(2.4e-5, 0.07, 4.1e-7),
    "portable": Speed(6.0e-5, 0.4, 1.2e-5),
    "reference": Speed(1.0e-3, 4.0, 2.5e-3),
}


@dataclass(frozen=True, slots=True)
class Estimate:
    """What one protocol would take. bytes: of all messages, both ways; seconds: of both parties' work and the wire."""

    protocol: str
    bytes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """A choice and its reasons; ``print(plan)`` shows all of it.

    statistical_bits: a wrong match in the whole job has probability at most 2⁻ᵇ; computational_bits: of the weakest
    assumption; leakage: what each side learns; warnings: what a person should think about first.
    """

    protocol: str
    adversary: Adversary
    reasons: tuple[str, ...]
    bytes: int
    seconds: float
    computational_bits: int
    statistical_bits: int
    leakage: Leakage
    warnings: tuple[str, ...]
    estimates: tuple[Estimate, ...]

    def __str__(self) -> str:
        lines = [
            f"protocol    {self.protocol}",
            *(f"because     {reason}" for reason in self.reasons),
            f"security    {self.adversary}, {self.computational_bits} bits; wrong matches {self.statistical_bits} bits",
            f"bytes       {self.bytes:,}",
            f"seconds     about {self.seconds:.2g}",
            f"consumer    learns {self.leakage.consumer}",
            f"provider    learns {self.leakage.provider}",
            *(f"warning     {warning}" for warning in self.warnings),
        ]
        return "\n".join(lines)


def plan(
    n: int,
    m: int,
    *,
    bandwidth: int = BANDWIDTH,
    output: str = "rows",
    reveal: str = "consumer",
    key_space: int | None = None,
    earlier_runs: int = 0,
    adversary: Adversary = "semi-honest",
    protocols: Sequence[str] | None = None,
) -> Plan:
    """Choose a protocol for n distinct keys of the consumer and m of the provider.

    bandwidth: bits a second between the two. output, reveal: as a request names them (``rows``, ``count``;
    ``consumer``, ``provider``, ``both``). key_space: how many different keys there could be at all, where that is
    known. earlier_runs: how often these two sides have intersected such sets before. adversary: what the other side
    might do: follow the protocol and look (``semi-honest``), or deviate from it (``malicious``).
    protocols: only these operations (those a grant allows). Raises ``ParameterError`` if none of them can do it.

    >>> plan(1_000_000, 1_000_000).protocol
    'psi.vole.v1'
    >>> plan(20, 50, output="count").protocol
    'psi.ecdh.v1'
    >>> plan(1_000_000, 1_000_000, adversary="malicious").protocol
    'psi.vole-malicious.v1'
    """
    if bandwidth < 1 or earlier_runs < 0 or (key_space is not None and key_space < 1):
        raise ParameterError("bandwidth and key_space must be at least 1, earlier_runs at least 0")
    sizes = Sizes(n, m)
    params = {"columns": ["key"], "keys": KEYS_DIGEST, "output": output, "reveal": reveal}
    operation.INTERSECTIONS[0].check(params, sizes)
    able, allowed = _allowed(output, reveal, adversary, protocols)
    estimates = [_estimate(op, op.check(params, sizes), sizes, bandwidth) for op in allowed]
    best = min(estimates, key=lambda estimate: estimate.seconds)
    chosen = next(op for op in allowed if op.id == best.protocol)
    return Plan(
        protocol=best.protocol,
        adversary="malicious" if best.protocol in MALICIOUS else "semi-honest",
        reasons=_reasons(best, estimates, able, output),
        bytes=best.bytes,
        seconds=best.seconds,
        computational_bits=COMPUTATIONAL_BITS,
        statistical_bits=8 * _width(best.protocol, n, m) - _pairs_bits(n, m),
        leakage=chosen.leakage(chosen.check(params, sizes)),
        warnings=_warnings(n, m, key_space, earlier_runs),
        estimates=tuple(estimates),
    )


def _allowed(
    output: str, reveal: str, adversary: Adversary, protocols: Sequence[str] | None
) -> tuple[list[Operation], list[Operation]]:
    """Operations that can do it, and those of them that may. What resists more is taken where nothing else may."""
    if adversary not in ("semi-honest", "malicious"):
        raise ParameterError(f"adversary must be semi-honest or malicious, not {adversary!r}")
    able = [op for op in operation.INTERSECTIONS if output in operation.OUTPUTS_OF[op.id]]
    able = [op for op in able if reveal != "both" or op.id not in MALICIOUS]
    strong = [op for op in able if op.id in MALICIOUS]
    weak = [op for op in able if op.id not in MALICIOUS and adversary == "semi-honest"]
    for ops in (weak, strong):
        if allowed := [op for op in ops if protocols is None or op.id in protocols]:
            return ops, allowed
    known = " or ".join(op.id for op in weak + strong) or "no protocol"
    raise ParameterError(
        f"output={output!r}, reveal={reveal!r} against a {adversary} side is done by {known}: none is allowed here"
    )


def _estimate(op: Operation, params: Params, sizes: Sizes, bandwidth: int) -> Estimate:
    speed = SPEEDS[kernels.active().name]
    receiver, sender = sizes.consumer, sizes.provider
    if params["reveal"] == "provider":
        receiver, sender = sender, receiver
    if op.id == "psi.ecdh.v1":
        work = speed.multiplication * (3 * receiver + sender)
    elif op.id == "psi.dh.v1":
        work = speed.multiplication * (2.1 * receiver + sender)
    else:
        work = speed.vole_run + speed.vole_key * (1.35 * receiver + sender)
        work *= CHECKED if op.id in MALICIOUS else 1
    sent = op.bound(params, sizes).bytes
    return Estimate(op.id, sent, work + 8 * sent / bandwidth)


def _reasons(
    best: Estimate, estimates: list[Estimate], able: list[Operation], output: str
) -> tuple[str, ...]:
    if len(able) == 1:
        does = f"finds a {output}" if best.protocol not in MALICIOUS else "holds against a side that deviates"
        return (f"it is the one that {does}",)
    if len(estimates) == 1:
        return ("it is the only one allowed here",)
    return tuple(
        f"{other.protocol} would take about {other.seconds:.2g} s and {other.bytes:,} bytes"
        for other in estimates
        if other is not best
    )


def _width(protocol: str, n: int, m: int) -> int:
    return vole_malicious.WIDTH if protocol in MALICIOUS else matching.width(n, m)


def _pairs_bits(n: int, m: int) -> int:
    return (max(n, 1) * max(m, 1) - 1).bit_length()


def _warnings(n: int, m: int, key_space: int | None, earlier_runs: int) -> tuple[str, ...]:
    found = []
    if key_space is not None and key_space < SMALL_DOMAIN * max(n, m, 1):
        found.append(
            f"there are only {key_space:,} possible keys: whoever learns can put in all of them, in {SMALL_DOMAIN} runs"
            " or fewer, and read the other side's whole set; limit rows and runs in the grant, or ask for a count"
        )
    if earlier_runs:
        found.append(
            f"these sides have done this {earlier_runs} times: sets that differ by little from run to run show whether"
            " the difference is in the other set; run seldom, and change sets by many keys at a time"
        )
    return tuple(found)
