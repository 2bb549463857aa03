"""Four airlines' nodes for tests of aggregates, each its own book and grant, and a broker that can hold keys."""

from __future__ import annotations

import time

import numpy as np
import pyarrow as pa
from world import AIRLINE, AUTHORITY

from trustcompute.aggregation import Bounds, Spec
from trustcompute.broker import grant as grants
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import AssetClaim, Limit
from trustcompute.broker.grant import Bounds as GrantBounds
from trustcompute.errors import TransportError
from trustcompute.node import Dataset, Node, Session
from trustcompute.protocol.operation import OutputForm
from trustcompute.testing import FakeClock, FaultyChannel
from trustcompute.transport import LocalChannel

OPERATION = "aggregation.masked.v1"
NAMES = ["aa.example", "dl.example", "ua.example", "wn.example"]
HOLDER = "keys.example"
IDENTITIES = {name: AUTHORITY.issue(name) for name in [*NAMES, HOLDER]}
SPEC = Spec(
    columns={"delay": Bounds(-60, 1800)},
    statistics=["count", "sum", "mean", "variance"],
    by={"origin": ["EWR", "JFK", "LGA"]},
    max_rows=1000,
)


def flights(seed):
    drawn = np.random.default_rng(seed)
    return pa.table(
        {
            "origin": drawn.choice(["EWR", "JFK", "LGA"], 200).tolist(),
            "delay": drawn.integers(-60, 1800, 200),
            "crew": np.arange(200),
        }
    )


TABLES = {name: flights(at) for at, name in enumerate(NAMES)}


class Airlines:
    """A node for each, and a session with each as one aggregator."""

    def __init__(self, directory):
        self.directory, self.clock = directory, FakeClock(int(time.time()))
        self.nodes, self.brokers, self.tables = {}, {}, dict(TABLES)
        for name in NAMES:
            self.start(name)

    def start(self, name, **options):
        self.brokers[name] = Broker.open(self.directory / name, IDENTITIES[name], clock=self.clock)
        dataset = Dataset(
            "flights", self.tables[name], version="1", **({"aggregates": ["delay", "origin"]} | options)
        )
        self.nodes[name] = Node(IDENTITIES[name], self.brokers[name], [dataset])

    def hold_keys(self, name=HOLDER, **options):
        """Begin a node that opens sums for this pool of airlines."""
        self.brokers[name] = Broker.open(self.directory / name, IDENTITIES[name], clock=self.clock)
        dataset = Dataset("flights", None, version="1", opens=True, **options)
        self.nodes[name] = Node(IDENTITIES[name], self.brokers[name], [dataset])

    def trust(self, *holders):
        """Let the airlines encrypt under their keys."""
        for name in NAMES:
            self.restart(name, aggregates=["delay", "origin"], key_holders=list(holders))

    def stop(self, name):
        self.nodes.pop(name).close()
        self.brokers.pop(name).close()

    def restart(self, name, **options):
        self.stop(name)
        self.start(name, **options)

    def grant(self, name, **changes):
        made = {
            "issuer": IDENTITIES[name].thumbprint,
            "audience": name,
            "subject": AIRLINE.name,
            "subject_key": AIRLINE.thumbprint,
            "asset": AssetClaim(id="flights", classification="general", grade="general", personal=False),
            "operations": {OPERATION: GrantBounds(columns=["delay", "origin"], min_group=3)},
            "purposes": ["delays"],
            "outputs": [OutputForm.AGGREGATE],
            "contingency": "0" * 64,
            "now": self.clock.now(),
            "limits": {"calls": Limit(total=10)},
        }
        return grants.sign(grants.new_grant(**(made | changes)), IDENTITIES[name].key)

    def session(self, name, *, plan=None, before=None, **changes):
        channel = LocalChannel(self.nodes[name], caller=AIRLINE.name, peer=name)
        channel = FaultyChannel(channel, plan or {}, before=before or (lambda number: None))
        return Session(channel, identity=AIRLINE, grant=self.grant(name, **changes))

    def sessions(self, **special):
        return [self.session(name, **special.get(name[:2], {})) for name in NAMES]

    def states(self, name):
        return [entry.type for entry in self.brokers[name].entries()]


def expected(names=NAMES):
    together = pa.concat_tables([TABLES[name] for name in names]).to_pandas()
    return together.groupby("origin")["delay"]


def vanishing(after):
    """A channel that is gone from its exchange of that number on."""

    def before(number):
        if number >= after:
            raise TransportError("the contributor is gone")

    return {"before": before}
