"""Secure aggregation: sums across holders that nobody can open early.

    Spec, Bounds, Noise     what is added up, agreed by all beforehand
    aggregate               all parties in one process
    plan                    which scheme for which case, and why
    Aggregate               an opened aggregate: exact sums, and statistics made of them

Over nodes: ``trustcompute.aggregate``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustcompute.lazy import attach

if TYPE_CHECKING:
    from trustcompute.aggregation.encoding import Unusable as Unusable
    from trustcompute.aggregation.local import aggregate as aggregate
    from trustcompute.aggregation.noise import Noise as Noise
    from trustcompute.aggregation.planner import Plan as Plan
    from trustcompute.aggregation.planner import plan as plan
    from trustcompute.aggregation.result import Aggregate as Aggregate
    from trustcompute.aggregation.spec import Spec as Spec
    from trustcompute.tables.fixed import Bounds as Bounds
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "trustcompute.aggregation.encoding": ["Unusable"],
            "trustcompute.aggregation.local": ["aggregate"],
            "trustcompute.aggregation.noise": ["Noise"],
            "trustcompute.aggregation.planner": ["Plan", "plan"],
            "trustcompute.aggregation.result": ["Aggregate"],
            "trustcompute.aggregation.spec": ["Spec"],
            "trustcompute.tables.fixed": ["Bounds"],
        },
    )
