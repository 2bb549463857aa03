"""Which scheme for which case, with reasons: what each would cost, who could open the sum, why one does not fit.

Called by ``aggregate(scheme="auto")`` and by people. Rates are of one core of a server of 2021 with AES and AVX2
instructions, busy with other work, from ``python -m benchmarks aggregation``: good to a factor of two.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, get_args

from trustcompute.aggregation import masked, paillier, rlwe, seal, threshold
from trustcompute.aggregation.keyed import Cipher, message_bytes
from trustcompute.aggregation.paillier import PaillierCipher
from trustcompute.aggregation.rlwe import RlweCipher
from trustcompute.aggregation.seal import SealCipher
from trustcompute.aggregation.spec import Spec
from trustcompute.errors import ParameterError

Scheme = Literal["masked", "rlwe-threshold", "rlwe", "rlwe-4096", "paillier", "phe", "bfv", "ckks"]
Together = Literal["masked", "rlwe-threshold"]
SCHEMES: Final[tuple[Scheme, ...]] = get_args(Scheme)
TOGETHER: Final[tuple[Together, ...]] = get_args(Together)
"""Schemes without a key holder: contributors open the sum together."""
IDS: Final[dict[Scheme, str]] = {
    "masked": masked.ID,
    "rlwe-threshold": threshold.ID,
    "rlwe": rlwe.IDS["rlwe-2048"],
    "rlwe-4096": rlwe.IDS["rlwe-4096"],
    "paillier": paillier.ID,
    "phe": paillier.ID,
    "bfv": seal.IDS["bfv"],
    "ckks": seal.IDS["ckks"],
}
"""Operations, by scheme."""

STREAM: Final = 4e8  # values a second a mask
ADD: Final = 5e8
ENCRYPT: Final = {
    "rlwe-threshold": 1e6,
    "rlwe": 1e7,
    "rlwe-4096": 8e6,
    "paillier": 3e4,
    "phe": 1.5e3,
    "bfv": 1e6,
    "ckks": 6e5,
}
"""Values a second, by scheme."""


@dataclass(frozen=True)
class Offer:
    """What one scheme would be. seconds and sent: of one contributor; obstacle: why it does not fit, or empty."""

    scheme: Scheme
    id: str
    opened_by: str
    seconds: float
    sent: int
    obstacle: str = ""

    def __str__(self) -> str:
        told = self.obstacle or (
            f"about {self.seconds:.2g} s and {self.sent / 1e6:,.2f} MB a contributor; opened by {self.opened_by}"
        )
        return f"{self.scheme}: {told}"


@dataclass(frozen=True)
class Plan:
    """chosen: what ``aggregate`` runs; why: in words; offers: of every scheme what it costs or why it does not fit."""

    chosen: Scheme
    why: str
    offers: tuple[Offer, ...]

    def __str__(self) -> str:
        return "\n".join([f"{self.chosen}: {self.why}", *(f"  {offer}" for offer in self.offers)])


def plan(
    spec: Spec, parties: int, *, together: bool = True, key_holder: bool = False, quantum: bool = False
) -> Plan:
    """Choose a scheme.

    together: all contributors are on line for five turns. key_holder: somebody is there who may open the sum, and does
    not collude with the aggregator. quantum: what is recorded today must stay hidden from a quantum computer. Raises
    ``ParameterError`` where nothing fits.
    """
    offers = tuple(_offer(scheme, spec, parties) for scheme in SCHEMES)
    fits = {offer.scheme: offer for offer in offers if not offer.obstacle}
    if "masked" in fits and together and not quantum:
        why = "nobody holds a key, contributors may vanish, and it is the fastest"
        return Plan("masked", why, offers)
    lack = "contributors do not meet" if not together else "an agreement of keys falls to a quantum computer"
    if together and "rlwe-threshold" in fits and not key_holder:
        return Plan(
            "rlwe-threshold", f"{lack}; lattices are not known to, and nobody else holds a key", offers
        )
    if not key_holder:
        raise ParameterError(
            f"{lack}, and nobody may hold a key: name a key holder that does not collude with the aggregator"
        )
    if quantum:
        return Plan("rlwe-4096", f"{lack}, and lattices are not known to", offers)
    small = fits["paillier"].seconds < 1 and fits["paillier"].sent < fits["rlwe"].sent
    if small:
        return Plan("paillier", f"{lack}, and for few values it sends the least", offers)
    return Plan("rlwe", f"{lack}, and it is the fastest that one message does", offers)


def cipher_of(scheme: Scheme, spec: Spec) -> Cipher:
    """The cipher of a scheme with a key holder. Raises ``ParameterError`` where it cannot serve the specification."""
    made: dict[str, Callable[[], Cipher]] = {
        "paillier": lambda: PaillierCipher(spec),
        "phe": lambda: PaillierCipher(spec, backend="phe"),
        "rlwe": lambda: RlweCipher(spec),
        "rlwe-4096": lambda: RlweCipher(spec, suite="rlwe-4096"),
        "bfv": lambda: SealCipher(spec, kind="bfv"),
        "ckks": lambda: SealCipher(spec, kind="ckks"),
    }
    if scheme not in made:
        raise ParameterError(f"no key holder opens the scheme {scheme!r}: it is one of {', '.join(made)}")
    return made[scheme]()


def _offer(scheme: Scheme, spec: Spec, parties: int) -> Offer:
    if scheme == "rlwe-threshold":
        return _threshold(spec, parties)
    if scheme == "masked":
        seconds = spec.slots * (parties / STREAM + 1 / ADD)
        obstacle = "" if parties >= 3 else "at least 3 parties are needed"
        return Offer(
            scheme, IDS[scheme], "nobody alone", seconds, masked.message_bytes(spec, parties), obstacle
        )
    try:
        cipher = cipher_of(scheme, spec)
    except ParameterError as error:
        return Offer(scheme, IDS[scheme], "", 0.0, 0, f"does not fit: {error}")
    seconds = spec.slots / ENCRYPT[scheme]
    return Offer(scheme, IDS[scheme], "the key holder", seconds, message_bytes(cipher))


def _threshold(spec: Spec, parties: int) -> Offer:
    scheme: Scheme = "rlwe-threshold"
    try:
        sent = threshold.message_bytes(spec, parties)
    except ParameterError as error:
        return Offer(scheme, threshold.ID, "", 0.0, 0, f"does not fit: {error}")
    seconds, obstacle = spec.slots / ENCRYPT[scheme], "" if parties >= 3 else "at least 3 parties are needed"
    return Offer(scheme, threshold.ID, "all contributors together", seconds, sent, obstacle)
