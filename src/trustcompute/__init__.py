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

from trustcompute import aggregation, dp, errors, psi, verification
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import Grant
from trustcompute.node import Dataset, Node, Session, aggregate, connect, intersect_many
from trustcompute.primitives.identity import CertificateAuthority, Identity

__version__ = "0.1.0.dev0"

__all__ = [
    "Broker",
    "CertificateAuthority",
    "Dataset",
    "Grant",
    "Identity",
    "Node",
    "Session",
    "aggregate",
    "aggregation",
    "connect",
    "dp",
    "errors",
    "intersect_many",
    "psi",
    "verification",
]
