"""Secure query verification: check a claim about one record, show nothing, believe only what is proven.

>>> from trustcompute import verification
>>> verification.verify({"id": [1, 2], "seats": [90, 180]}, "seats >= 100", keys=[2], subject="id").codes
['match']
"""

from trustcompute.verification.answer import Proof, VerifiedAnswer
from trustcompute.verification.arbiter import Disputed, Evidence, Judgement, judge
from trustcompute.verification.cells import Code
from trustcompute.verification.operation import OPERATIONS
from trustcompute.verification.planner import MODES, Plan, plan
from trustcompute.verification.predicate import Predicate, parse
from trustcompute.verification.proof import Check
from trustcompute.verification.statistical.answer import Statistics
from trustcompute.verification.statistical.query import statistics
from trustcompute.verification.statistical.rules import Rules
from trustcompute.verification.statistical.tabulator import Tabulator
from trustcompute.verification.verify import Verification, verify

__all__ = [
    "MODES",
    "OPERATIONS",
    "Check",
    "Code",
    "Disputed",
    "Evidence",
    "Judgement",
    "Plan",
    "Predicate",
    "Proof",
    "Rules",
    "Statistics",
    "Tabulator",
    "Verification",
    "VerifiedAnswer",
    "judge",
    "parse",
    "plan",
    "statistics",
    "verify",
]
