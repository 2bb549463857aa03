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
from trustcompute.psi.sums.local import intersect_sum
from trustcompute.psi.sums.operation import OPERATION as SUM
from trustcompute.psi.sums.result import IntersectionSum
from trustcompute.psi.sums.terms import Noise
from trustcompute.tables.fixed import Bounds

OPERATIONS = (
    *INTERSECTIONS,
    lookup.OPERATION,
    star_operation.OPERATION,
    cascading.OPERATION,
    delta.OPERATION,
    SUM,
)

__all__ = [
    "OPERATIONS",
    "Bounds",
    "Cascade",
    "FileIntersection",
    "Following",
    "InOrder",
    "Intersection",
    "IntersectionSum",
    "Noise",
    "Plan",
    "cascade",
    "intersect",
    "intersect_files",
    "intersect_many",
    "intersect_sum",
    "plan",
]
