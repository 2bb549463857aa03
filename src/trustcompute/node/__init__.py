"""Where a computation meets the broker: ``Node`` answers, ``connect`` and ``Session`` ask.

Called by your own service, a notebook or the command line.
"""

from trustcompute.node.aggregate import MeteredAggregate, aggregate
from trustcompute.node.bulk import MeteredFileIntersection
from trustcompute.node.cascade import MeteredCascade
from trustcompute.node.dataset import Dataset
from trustcompute.node.intersection import MeteredIntersection
from trustcompute.node.many import MeteredStar, intersect_many
from trustcompute.node.releasing import MeteredRelease
from trustcompute.node.server import Node, ProviderResult
from trustcompute.node.session import Session, connect
from trustcompute.node.statistics import MeteredStatistics
from trustcompute.node.summing import MeteredSum
from trustcompute.node.sums import Summable
from trustcompute.node.verification import Published
from trustcompute.node.verifying import MeteredVerification

__all__ = [
    "Dataset",
    "MeteredAggregate",
    "MeteredCascade",
    "MeteredFileIntersection",
    "MeteredIntersection",
    "MeteredRelease",
    "MeteredStar",
    "MeteredStatistics",
    "MeteredSum",
    "MeteredVerification",
    "Node",
    "ProviderResult",
    "Published",
    "Session",
    "Summable",
    "aggregate",
    "connect",
    "intersect_many",
]
