"""Clearing: from the log alone to what every party owes, and to the payments that settle it.

    plan, split       what a use costs under a grant's price plan, and who shares it, exactly
    record            everything the log says about money, fed entry by entry; terms, sums: its pieces
    statement         a period's lines; what closing it records
    rounding          whole units once per period, every party within one of its exact share
    netting           the fewest payments that keep every net position
    agreement, index  quote, appraisal and agreement that bind the plans of grants; what a unit came to
    contribution      who added how much: leave-one-out, Shapley
    fold              the log read once, and kept
    dispute           a disputed use, its evidence, and what both sides' papers settle

Nothing here is stored: statements, payments and frozen lines are what the entries amount to, and the audit replays
them. Amounts are exact rationals of a minor unit until a period is closed; no float is ever money.
"""

from __future__ import annotations

from trustcompute.broker.clearing.plan import most, rate
from trustcompute.broker.clearing.record import Clearing
from trustcompute.broker.clearing.rounding import apportion
from trustcompute.broker.clearing.statement import Account, Line, Period, Row, Statement, closing_entries
from trustcompute.broker.clearing.terms import Closing

__all__ = [
    "Account",
    "Clearing",
    "Closing",
    "Line",
    "Period",
    "Row",
    "Statement",
    "apportion",
    "closing_entries",
    "most",
    "rate",
]
