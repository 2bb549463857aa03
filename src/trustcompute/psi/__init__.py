"""Private set intersection: which keys, or how many, two organisations share, and nothing else.

>>> from trustcompute import psi
>>> psi.intersect({"id": [1, 2, 3]}, {"id": [2, 3, 4]}, on="id").count
2
"""

from trustcompute.psi.intersection import Intersection, intersect
from trustcompute.psi.operation import OPERATIONS
from trustcompute.psi.planner import Plan, plan

__all__ = ["OPERATIONS", "Intersection", "Plan", "intersect", "plan"]
