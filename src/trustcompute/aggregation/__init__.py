"""Secure aggregation: sums across holders that nobody can open early.

    Spec, Bounds, Noise     what is added up, agreed by all beforehand
    aggregate               all parties in one process
    plan                    which scheme for which case, and why
    Aggregate               an opened aggregate: exact sums, and statistics made of them

Over nodes: ``trustcompute.aggregate``.
"""

from trustcompute.aggregation.aggregate import aggregate
from trustcompute.aggregation.encoding import Unusable
from trustcompute.aggregation.noise import Noise
from trustcompute.aggregation.plan import Plan, plan
from trustcompute.aggregation.result import Aggregate
from trustcompute.aggregation.spec import Spec
from trustcompute.tables.fixed import Bounds

__all__ = ["Aggregate", "Bounds", "Noise", "Plan", "Spec", "Unusable", "aggregate", "plan"]
