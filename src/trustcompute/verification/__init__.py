"""Secure query verification: check a claim about one record, show nothing, believe only what is proven.

>>> from trustcompute import verification
>>> verification.verify({"id": [1, 2], "seats": [90, 180]}, "seats >= 100", keys=[2], subject="id").codes
['match']
"""

from trustcompute.verification.answer import Proof, VerifiedAnswer
from trustcompute.verification.cells import Code
from trustcompute.verification.operation import OPERATIONS
from trustcompute.verification.planner import MODES, Plan, plan
from trustcompute.verification.predicate import Predicate, parse
from trustcompute.verification.proof import Check
from trustcompute.verification.verify import Verification, verify

__all__ = [
    "MODES",
    "OPERATIONS",
    "Check",
    "Code",
    "Plan",
    "Predicate",
    "Proof",
    "Verification",
    "VerifiedAnswer",
    "parse",
    "plan",
    "verify",
]
