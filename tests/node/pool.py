"""Several holders' nodes for tests of computations of many: each its own book, dataset and grant, and one asker."""

from __future__ import annotations

import time

from world import AIRLINE

from trustcompute.broker import grant as grants
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import AssetClaim, Limit
from trustcompute.errors import TransportError
from trustcompute.node import Dataset, Node, Session
from trustcompute.testing import FakeClock, FaultyChannel
from trustcompute.transport import LocalChannel


class Pool:
    """A node for each name, and a session with each. A subclass says what they hold, and what is granted."""

    identities: dict  # by name
    tables: dict  # by name
    dataset: str
    offered: dict  # how
    granted: dict  # for what

    def __init__(self, directory):
        self.directory, self.clock = directory, FakeClock(int(time.time()))
        self.nodes, self.brokers, self.tables = {}, {}, dict(self.tables)
        for name in self.tables:
            self.start(name)

    def start(self, name, **options):
        self.serve(name, self.tables[name], **self.offered | options)

    def serve(self, name, table, *, book=None, **options):
        """book: another one than it had, for another version of a dataset of the same name."""
        self.brokers[name] = Broker.open(
            self.directory / (book or name), self.identities[name], clock=self.clock
        )
        dataset = Dataset(self.dataset, table, version="1", **options)
        self.nodes[name] = Node(self.identities[name], self.brokers[name], [dataset])

    def stop(self, name):
        self.nodes.pop(name).close()
        self.brokers.pop(name).close()

    def restart(self, name, **options):
        self.stop(name)
        self.start(name, **options)

    def grant(self, name, **changes):
        made = {
            "issuer": self.identities[name].thumbprint,
            "audience": name,
            "subject": AIRLINE.name,
            "subject_key": AIRLINE.thumbprint,
            "asset": AssetClaim(id=self.dataset, classification="general", grade="general", personal=False),
            "purposes": ["check"],
            "contingency": "0" * 64,
            "now": self.clock.now(),
            "limits": {"calls": Limit(total=10)},
        }
        return grants.sign(grants.new_grant(**made | self.granted | changes), self.identities[name].key)

    def session(self, name, *, plan=None, before=None, **changes):
        channel = LocalChannel(self.nodes[name], caller=AIRLINE.name, peer=name)
        channel = FaultyChannel(channel, plan or {}, before=before or (lambda number: None))
        return Session(channel, identity=AIRLINE, grant=self.grant(name, **changes))

    def sessions(self, **special):
        return [self.session(name, **special.get(name[:2], {})) for name in self.tables]

    def states(self, name):
        return [entry.type for entry in self.brokers[name].entries()]


def gone(when):
    """A channel that is gone at exchanges of these numbers."""

    def before(number):
        if when(number):
            raise TransportError("the line is broken")

    return {"before": before}
