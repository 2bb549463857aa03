"""Private set intersection: which keys, or how many, two organisations share, and nothing else.

>>> from trustcompute import psi
>>> psi.intersect({"id": [1, 2, 3]}, {"id": [2, 3, 4]}, on="id").count
2
"""

from trustcompute.psi import lookup
from trustcompute.psi.files import FileIntersection, intersect_files
from trustcompute.psi.intersection import Intersection, intersect
from trustcompute.psi.operation import INTERSECTIONS
from trustcompute.psi.planner import Plan, plan
from trustcompute.psi.sums.local import intersect_sum
from trustcompute.psi.sums.operation import OPERATION as SUM
from trustcompute.psi.sums.result import IntersectionSum
from trustcompute.psi.sums.terms import Noise
from trustcompute.tables.fixed import Bounds

OPERATIONS = (*INTERSECTIONS, lookup.OPERATION, SUM)

__all__ = [
    "OPERATIONS",
    "Bounds",
    "FileIntersection",
    "Intersection",
    "IntersectionSum",
    "Noise",
    "Plan",
    "intersect",
    "intersect_files",
    "intersect_sum",
    "plan",
]
