"""Secure query verification: check a claim about one record, show nothing, believe only what is proven.

>>> from trustcompute import verification
>>> verification.verify({"id": [1, 2], "seats": [90, 180]}, "seats >= 100", keys=[2], subject="id").codes
['match']
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustcompute.lazy import attach

if TYPE_CHECKING:
    from trustcompute.verification.answer import Proof as Proof
    from trustcompute.verification.answer import VerifiedAnswer as VerifiedAnswer
    from trustcompute.verification.arbiter import Disputed as Disputed
    from trustcompute.verification.arbiter import Evidence as Evidence
    from trustcompute.verification.arbiter import Judgement as Judgement
    from trustcompute.verification.arbiter import judge as judge
    from trustcompute.verification.cells import Code as Code
    from trustcompute.verification.local import Verification as Verification
    from trustcompute.verification.local import verify as verify
    from trustcompute.verification.operation import OPERATIONS as OPERATIONS
    from trustcompute.verification.planner import MODES as MODES
    from trustcompute.verification.planner import Plan as Plan
    from trustcompute.verification.planner import plan as plan
    from trustcompute.verification.predicate import Predicate as Predicate
    from trustcompute.verification.predicate import parse as parse
    from trustcompute.verification.proof import Check as Check
    from trustcompute.verification.statistical.answer import Statistics as Statistics
    from trustcompute.verification.statistical.query import statistics as statistics
    from trustcompute.verification.statistical.rules import Rules as Rules
    from trustcompute.verification.statistical.tabulator import Tabulator as Tabulator
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "trustcompute.verification.answer": ["Proof", "VerifiedAnswer"],
            "trustcompute.verification.arbiter": ["Disputed", "Evidence", "Judgement", "judge"],
            "trustcompute.verification.cells": ["Code"],
            "trustcompute.verification.local": ["Verification", "verify"],
            "trustcompute.verification.operation": ["OPERATIONS"],
            "trustcompute.verification.planner": ["MODES", "Plan", "plan"],
            "trustcompute.verification.predicate": ["Predicate", "parse"],
            "trustcompute.verification.proof": ["Check"],
            "trustcompute.verification.statistical.answer": ["Statistics"],
            "trustcompute.verification.statistical.query": ["statistics"],
            "trustcompute.verification.statistical.rules": ["Rules"],
            "trustcompute.verification.statistical.tabulator": ["Tabulator"],
        },
    )
