"""Where a computation meets the broker: ``Node`` answers, ``connect`` and ``Session`` ask.

Called by your own service, a notebook or the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustcompute.lazy import attach

if TYPE_CHECKING:
    from trustcompute.node.aggregating import MeteredAggregate as MeteredAggregate
    from trustcompute.node.aggregating import aggregate as aggregate
    from trustcompute.node.bulk import MeteredFileIntersection as MeteredFileIntersection
    from trustcompute.node.cascade import MeteredCascade as MeteredCascade
    from trustcompute.node.dataset import Dataset as Dataset
    from trustcompute.node.intersection import MeteredIntersection as MeteredIntersection
    from trustcompute.node.many import MeteredStar as MeteredStar
    from trustcompute.node.many import intersect_many as intersect_many
    from trustcompute.node.releasing import MeteredRelease as MeteredRelease
    from trustcompute.node.server import Node as Node
    from trustcompute.node.server import ProviderResult as ProviderResult
    from trustcompute.node.session import Session as Session
    from trustcompute.node.session import connect as connect
    from trustcompute.node.statistics import MeteredStatistics as MeteredStatistics
    from trustcompute.node.summing import MeteredSum as MeteredSum
    from trustcompute.node.sums import Summable as Summable
    from trustcompute.node.verification import Published as Published
    from trustcompute.node.verifying import MeteredVerification as MeteredVerification
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "trustcompute.node.aggregating": ["MeteredAggregate", "aggregate"],
            "trustcompute.node.bulk": ["MeteredFileIntersection"],
            "trustcompute.node.cascade": ["MeteredCascade"],
            "trustcompute.node.dataset": ["Dataset"],
            "trustcompute.node.intersection": ["MeteredIntersection"],
            "trustcompute.node.many": ["MeteredStar", "intersect_many"],
            "trustcompute.node.releasing": ["MeteredRelease"],
            "trustcompute.node.server": ["Node", "ProviderResult"],
            "trustcompute.node.session": ["Session", "connect"],
            "trustcompute.node.statistics": ["MeteredStatistics"],
            "trustcompute.node.summing": ["MeteredSum"],
            "trustcompute.node.sums": ["Summable"],
            "trustcompute.node.verification": ["Published"],
            "trustcompute.node.verifying": ["MeteredVerification"],
        },
    )
