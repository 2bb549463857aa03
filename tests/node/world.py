"""A registry's node and an airline's session for tests: one grant, a clock moved by hand, any directory."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

import pyarrow as pa

from trustcompute.broker import grant as grants
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import AssetClaim, Bounds, Limit, PricePlan, Share
from trustcompute.node import Dataset, Node, Session
from trustcompute.node.computation import COMPUTATIONS, Computation
from trustcompute.primitives.identity import CertificateAuthority
from trustcompute.protocol.operation import OutputForm
from trustcompute.testing import THREE_TURNS, FakeClock, FaultyChannel, answerer
from trustcompute.transport import LocalChannel

AUTHORITY = CertificateAuthority.create("test data space")
REGISTRY = AUTHORITY.issue("registry.example")
AIRLINE = AUTHORITY.issue("airline.example")
RIVAL = AUTHORITY.issue("rival.example")

PLANES = pa.table({"tailnum": [f"N{i}" for i in range(40)] + ["N1", None], "seats": range(42)})
FLIGHTS = pa.table({"tail": ["N1", "N39", "N1", None, "X1", "N7"], "flight": range(6)})
MATCHED = [0, 1, 2, 5]

ALL = (*COMPUTATIONS, Computation(THREE_TURNS, lambda held, params: 0, lambda *_: answerer()))


class World:
    """``node`` and ``grant`` are ready; ``session()`` opens one as the airline; ``restart()`` begins a new process."""

    sessions = ()

    def __init__(self, directory: Path, **claims):
        self.directory = directory
        self.clock = FakeClock(int(time.time()))
        self.results = []
        self.node = None
        self.start()
        self.grant = self.issue(**claims)

    @classmethod
    def reopened(cls, directory: Path) -> World:
        """What a process that died has left there, its grant in a file."""
        made = cls.__new__(cls)
        made.directory, made.clock, made.results = directory, FakeClock(int(time.time())), []
        made.grant = (directory / "grant").read_text()
        made.start()
        return made

    def start(self):
        self.broker = Broker.open(self.directory / "book", REGISTRY, clock=self.clock)
        self.node = Node(
            REGISTRY,
            self.broker,
            [Dataset("planes", PLANES, version="2013", keys=["tailnum", ["tailnum", "seats"]])],
            on_result=self.results.append,
            computations=ALL,
        )

    def stop(self):
        """In good order: what sessions have to acknowledge is acknowledged."""
        for session in self.sessions:
            with contextlib.suppress(RuntimeError):  # it is closed
                session._acknowledging.submit(int).result()
        self.sessions = ()
        self.node.close()
        self.broker.close()

    def restart(self):
        self.stop()
        self.start()

    def claims(self, subject=AIRLINE, **changes):
        made = {
            "issuer": REGISTRY.thumbprint,
            "audience": REGISTRY.name,
            "subject": subject.name,
            "subject_key": subject.thumbprint,
            "asset": AssetClaim(
                id="planes", version="2013", classification="general", grade="general", personal=False
            ),
            "operations": {"psi.ecdh.v1": Bounds(), "psi.dh.v1": Bounds(), THREE_TURNS.id: Bounds()},
            "purposes": ["check"],
            "outputs": list(OutputForm),
            "contingency": "0" * 64,
            "now": self.clock.now(),
            "limits": {"calls": Limit(total=10)},
            "price": PricePlan(kind="per_use", currency="USD", per_call="10", per_row="1/3"),
            "split": [Share(party="registry", share="2/3"), Share(party="operator", share="1/3")],
        }
        return grants.new_grant(**(made | changes))

    def issue(self, **changes):
        return grants.sign(self.claims(**changes), REGISTRY.key)

    def channel(self, identity=AIRLINE):
        return LocalChannel(self.node, caller=identity.name, peer=REGISTRY.name)

    def session(self, *, plan=None, before=None, identity=AIRLINE, grant=None, state=None):
        channel = FaultyChannel(self.channel(identity), plan or {}, before=before or (lambda number: None))
        session = Session(channel, identity=identity, grant=grant or self.grant, state=state)
        session.channel = channel
        self.sessions = (*self.sessions, session)
        return session

    def intersect(self, session=None, **options):
        found = (session or self.session()).intersect("planes", FLIGHTS, on={"tail": "tailnum"}, **options)
        assert found.receipt  # waited for: what is looked at next is what an acknowledged job leaves
        return found

    def types(self):
        return [entry.type for entry in self.broker.entries()]

    def used(self):
        """Calls charged to the grant, and calls reserved, from the quote's view of what is left."""
        left = self.session().quote("psi.ecdh.v1", "planes", rows=1).left["calls"]["total"]
        return 10 - int(left)

    def check(self):
        """Log, meter and statement agree."""
        report = self.broker.audit()
        assert report.meter
        return report
