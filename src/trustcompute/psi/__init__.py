"""Private set intersection: which keys, or how many, two organisations share, and nothing else.

>>> from trustcompute import psi
>>> psi.intersect({"id": [1, 2, 3]}, {"id": [2, 3, 4]}, on="id").count
2
"""

from trustcompute.psi import lookup, star_operation
from trustcompute.psi.files import FileIntersection, intersect_files
from trustcompute.psi.intersection import Intersection, intersect
from trustcompute.psi.many import intersect_many
from trustcompute.psi.operation import INTERSECTIONS
from trustcompute.psi.planner import Plan, plan

OPERATIONS = (*INTERSECTIONS, lookup.OPERATION, star_operation.OPERATION)

__all__ = [
    "OPERATIONS",
    "FileIntersection",
    "Intersection",
    "Plan",
    "intersect",
    "intersect_files",
    "intersect_many",
    "plan",
]
