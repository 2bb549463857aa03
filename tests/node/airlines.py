"""Four airlines' nodes for tests of aggregates, each its own book and grant, and a broker that can hold keys."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from pool import Pool, gone
from world import AUTHORITY

from trustcompute.aggregation import Bounds, Spec
from trustcompute.broker.grant import Bounds as GrantBounds
from trustcompute.protocol.operation import OutputForm

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


OFFERED = {"aggregates": ["delay", "origin"]}
GRANTED = {
    "operations": {OPERATION: GrantBounds(columns=["delay", "origin"], min_group=3)},
    "purposes": ["delays"],
    "outputs": [OutputForm.AGGREGATE],
}


class Airlines(Pool):
    """A node for each, and a session with each as one aggregator."""

    identities, tables, dataset = IDENTITIES, TABLES, "flights"
    offered, granted = OFFERED, GRANTED

    def hold_keys(self, name=HOLDER, **options):
        """Begin a node that opens sums for this pool of airlines."""
        self.serve(name, None, opens=True, **options)

    def trust(self, *holders):
        """Let the airlines encrypt under their keys."""
        for name in NAMES:
            self.restart(name, aggregates=["delay", "origin"], key_holders=list(holders))


def expected(names=NAMES):
    together = pa.concat_tables([TABLES[name] for name in names]).to_pandas()
    return together.groupby("origin")["delay"]


def vanishing(after):
    """A channel that is gone from its exchange of that number on."""
    return gone(lambda number: number >= after)
