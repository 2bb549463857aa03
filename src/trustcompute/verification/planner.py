"""Which mode for which question, and who learns what by it: a decision a person can read.

Called by ``Session.verify`` and the command line. Modes differ in what the holder learns, so none is replaced by a
weaker one silently: ``auto`` means ``private`` where the asker has an auditor's check, and ``bucket`` is taken only
by name or without one, as the plan says.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trustcompute.errors import ParameterError
from trustcompute.protocol.operation import Leakage, Sizes
from trustcompute.verification import operation
from trustcompute.verification.descriptor import Descriptor
from trustcompute.verification.operation import BUCKET, PRIVATE

Mode = Literal["auto", "bucket", "private"]


@dataclass(frozen=True)
class Plan:
    """mode and operation, why, bytes of all messages, what each side learns, and among how many records a key is
    hidden."""

    mode: Literal["bucket", "private"]
    operation: str
    reason: str
    bytes: int
    hidden_among: int
    leakage: Leakage


def plan(
    said: Descriptor, questions: int, *, checked: bool, fetch: bool = False, mode: Mode = "auto"
) -> Plan:
    """What a number of questions about a table would take. checked: whether an auditor's check is at hand; fetch:
    whether the hint is still to be received. Raises ``ParameterError`` for a mode that cannot be."""
    if mode == "private" and not checked:
        raise ParameterError(
            "private mode needs a check from an auditor (trustcompute verify audit): without one a holder could spoil"
            " some columns and see who complains; pass check=, or mode='bucket'"
        )
    if mode not in ("auto", "bucket", "private"):
        raise ParameterError(f"mode must be auto, bucket or private, not {mode!r}")
    chosen: Literal["bucket", "private"] = (
        "private" if mode == "private" or (mode == "auto" and checked) else "bucket"
    )
    protocol = PRIVATE if chosen == "private" else BUCKET
    reason = {
        "private": "the holder learns nothing of which record is asked about",
        "bucket": f"a key is hidden among {said.records // said.buckets.columns:,} records on average;"
        + (" asked for by name" if mode == "bucket" else " there is no auditor's check for private mode"),
    }[chosen]
    params = operation.parameters(protocol, said, "0" * 64, fetch=fetch)
    sizes = Sizes(questions, said.records)
    return Plan(
        chosen,
        protocol,
        reason,
        operation.bound(protocol, params, sizes).bytes,
        said.records if chosen == "private" else said.records // said.buckets.columns,
        operation.leakage(protocol, params),
    )
