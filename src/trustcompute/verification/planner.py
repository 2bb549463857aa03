"""Which mode for which question, and who learns what by it: a decision a person can read.

Called by ``Session.verify`` and the command line. Modes differ in what the holder learns, so none is replaced by a
weaker one silently: ``auto`` means ``private`` where the asker has an auditor's check, and ``bucket`` is taken only
by name or without one, as the plan says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final, Literal

from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Params, Sizes
from trustcompute.verification import operation
from trustcompute.verification.descriptor import Descriptor
from trustcompute.verification.operation import BUCKET, DOWNLOAD, MAX_QUESTIONS, PRIVATE

Chosen = Literal["bucket", "private", "batch", "download"]
Mode = Literal["auto", "bucket", "private", "batch", "download"]

MODES: Final[tuple[Chosen, ...]] = ("bucket", "private", "batch", "download")
OPERATIONS: Final[dict[Chosen, str]] = {
    "bucket": BUCKET,
    "private": PRIVATE,
    "batch": PRIVATE,
    "download": DOWNLOAD,
}
LEAST_BATCH: Final = 16
"""A batch is padded to a power of two, this at least."""


@dataclass(frozen=True)
class Plan:
    """mode and operation, why, bytes of all messages, what each side learns, and among how many records a key is
    hidden.

    questions: that the holder sees and charges: of a batch more than there are keys.
    """

    mode: Chosen
    operation: str
    reason: str
    bytes: int
    hidden_among: int
    leakage: Leakage
    questions: int


def plan(
    said: Descriptor, questions: int, *, checked: bool, fetch: bool = False, mode: Mode = "auto"
) -> Plan:
    """What a number of questions about a table would take. checked: whether an auditor's check is at hand; fetch:
    whether what the mode receives once (hint or table) is still to be received. Raises ``ParameterError`` for a mode
    that cannot be."""
    if mode in ("private", "batch") and not checked:
        raise ParameterError(
            f"{mode} mode needs a check from an auditor (trustcompute verify audit): without one a holder could spoil"
            " some columns and see who complains; pass check=, or mode='bucket'"
        )
    if mode not in ("auto", *MODES):
        raise ParameterError(f"mode must be auto, bucket, private, batch or download, not {mode!r}")
    chosen: Chosen = mode if mode != "auto" else ("private" if checked else "bucket")
    protocol = OPERATIONS[chosen]
    asked = _padded(questions) if chosen == "batch" else questions
    params = operation.parameters(protocol, said, "0" * 64, fetch=fetch)
    return Plan(
        chosen,
        protocol,
        _reason(said, chosen, asked, by_name=mode != "auto"),
        operation.bound(protocol, params, Sizes(asked, said.records)).bytes,
        said.records // said.buckets.columns if chosen == "bucket" else said.records,
        _leakage(protocol, params, padded=chosen == "batch"),
        asked,
    )


def _padded(questions: int) -> int:
    found = max(LEAST_BATCH, 1 << max(0, questions - 1).bit_length())
    if found > MAX_QUESTIONS[PRIVATE]:
        raise ParameterError(
            f"a batch has at most {MAX_QUESTIONS[PRIVATE]} questions, not {questions}: ask in several, or in download"
            " mode where the grant has it"
        )
    return found


def _reason(said: Descriptor, chosen: Chosen, asked: int, *, by_name: bool) -> str:
    if chosen == "bucket":
        average = said.records // said.buckets.columns
        why = "asked for by name" if by_name else "there is no auditor's check for private mode"
        return f"a key is hidden among {average:,} records on average; {why}"
    return {
        "private": "the holder learns nothing of which record is asked about",
        "batch": f"the holder learns nothing of which records are asked about, nor how many of up to {asked:,}",
        "download": "the masked table lies here: the holder learns nothing of which records are asked about",
    }[chosen]


def _leakage(protocol: str, params: Params, *, padded: bool) -> Leakage:
    found = operation.leakage(protocol, params)
    if not padded:
        return found
    return replace(
        found, provider="at most how many keys are asked about, to the next power of two, and which predicate"
    )
