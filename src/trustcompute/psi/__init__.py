"""Private set intersection: which keys, or how many, two organisations share, and nothing else.

>>> from trustcompute import psi
>>> psi.intersect({"id": [1, 2, 3]}, {"id": [2, 3, 4]}, on="id").count
2
"""

from trustcompute.psi import cascading, delta, lookup, star_operation
from trustcompute.psi.cascading import cascade
from trustcompute.psi.delta import Following
from trustcompute.psi.files import FileIntersection, intersect_files
from trustcompute.psi.in_order import Cascade, InOrder
from trustcompute.psi.intersection import Intersection, intersect
from trustcompute.psi.many import intersect_many
from trustcompute.psi.operation import INTERSECTIONS
from trustcompute.psi.planner import Plan, plan

OPERATIONS = (
    *INTERSECTIONS,
    lookup.OPERATION,
    star_operation.OPERATION,
    cascading.OPERATION,
    delta.OPERATION,
)

__all__ = [
    "OPERATIONS",
    "Cascade",
    "FileIntersection",
    "Following",
    "InOrder",
    "Intersection",
    "Plan",
    "cascade",
    "intersect",
    "intersect_files",
    "intersect_many",
    "plan",
]
