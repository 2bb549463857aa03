"""Usable but invisible: organisations compute on each other's data, and raw data never leaves its holder.

    psi                      private set intersection, both sides in one process
    verification             claims about one record checked, both sides in one process
    aggregation              sums over several holders, all of them in one process
    dp                       differentially private release of a table's aggregates
    Node, Dataset            offer data to others under grants
    connect, Session         ask a node
    aggregate                sums over the datasets of several nodes
    intersect_many           keys that the datasets of several nodes all hold
    Broker, Grant            grants, the meter, the log, statements
    Identity                 one key: signs documents, carries the TLS certificate
    CertificateAuthority     a small authority of one's own
    errors                   the tree of errors

Start at ``psi.intersect`` or at the tutorial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from trustcompute.lazy import attach

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from trustcompute import aggregation as aggregation
    from trustcompute import dp as dp
    from trustcompute import errors as errors
    from trustcompute import psi as psi
    from trustcompute import verification as verification
    from trustcompute.broker.broker import Broker as Broker
    from trustcompute.broker.grant import Grant as Grant
    from trustcompute.node import Dataset as Dataset
    from trustcompute.node import Node as Node
    from trustcompute.node import Session as Session
    from trustcompute.node import aggregate as aggregate
    from trustcompute.node import connect as connect
    from trustcompute.node import intersect_many as intersect_many
    from trustcompute.primitives.identity import CertificateAuthority as CertificateAuthority
    from trustcompute.primitives.identity import Identity as Identity
else:
    __getattr__, __dir__, __all__ = attach(
        __name__,
        {
            "trustcompute": ["aggregation", "dp", "errors", "psi", "verification"],
            "trustcompute.broker.broker": ["Broker"],
            "trustcompute.broker.grant": ["Grant"],
            "trustcompute.node": ["Dataset", "Node", "Session", "aggregate", "connect", "intersect_many"],
            "trustcompute.primitives.identity": ["CertificateAuthority", "Identity"],
        },
    )
