"""Private set intersection: which keys, or how many, two organisations share, and nothing else.

>>> from trustcompute import psi
>>> psi.intersect({"id": [1, 2, 3]}, {"id": [2, 3, 4]}, on="id").count
2
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustcompute.lazy import attach

if TYPE_CHECKING:
    from trustcompute.psi.cascading import cascade as cascade
    from trustcompute.psi.delta import Following as Following
    from trustcompute.psi.files import FileIntersection as FileIntersection
    from trustcompute.psi.files import intersect_files as intersect_files
    from trustcompute.psi.in_order import Cascade as Cascade
    from trustcompute.psi.in_order import InOrder as InOrder
    from trustcompute.psi.intersection import Intersection as Intersection
    from trustcompute.psi.intersection import intersect as intersect
    from trustcompute.psi.many import intersect_many as intersect_many
    from trustcompute.psi.operations import OPERATIONS as OPERATIONS
    from trustcompute.psi.planner import Plan as Plan
    from trustcompute.psi.planner import plan as plan
    from trustcompute.psi.sums.local import intersect_sum as intersect_sum
    from trustcompute.psi.sums.result import IntersectionSum as IntersectionSum
    from trustcompute.psi.sums.terms import Noise as Noise
    from trustcompute.tables.fixed import Bounds as Bounds
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "trustcompute.psi.cascading": ["cascade"],
            "trustcompute.psi.delta": ["Following"],
            "trustcompute.psi.files": ["FileIntersection", "intersect_files"],
            "trustcompute.psi.in_order": ["Cascade", "InOrder"],
            "trustcompute.psi.intersection": ["Intersection", "intersect"],
            "trustcompute.psi.many": ["intersect_many"],
            "trustcompute.psi.operations": ["OPERATIONS"],
            "trustcompute.psi.planner": ["Plan", "plan"],
            "trustcompute.psi.sums.local": ["intersect_sum"],
            "trustcompute.psi.sums.result": ["IntersectionSum"],
            "trustcompute.psi.sums.terms": ["Noise"],
            "trustcompute.tables.fixed": ["Bounds"],
        },
    )
