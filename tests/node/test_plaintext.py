"""A dictionary scan over every layer: no identifier and no value of a row in anything that either side leaves.

Three holders and one asker, whose identifiers and values are known and looked for afterwards: in books, exported
logs, back-ups, the outbox, directories that nodes and sessions keep, receipts, statements, Python's logs, what was
printed, and the texts of refusals and failures, also where a message was lost or altered. Each is looked for in several
spellings: text, hex, base64, integers and floats as bytes, digests without salt.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import struct
import time
import traceback
from collections import defaultdict

import numpy as np
import pyarrow as pa
import pytest
import world as worlds

import trustcompute as tc
from trustcompute import aggregation, dp, psi, tables
from trustcompute.broker import grant as grants
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import AssetClaim, Bounds, Limit
from trustcompute.errors import TrustcomputeError
from trustcompute.node import Dataset, Node, Published, Session, Summable
from trustcompute.node.computation import COMPUTATIONS
from trustcompute.node.dataset import HeldDataset
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.operation import OutputForm
from trustcompute.testing import FakeClock, FaultyChannel
from trustcompute.transport import LocalChannel
from trustcompute.verification import Rules, proof

HOLDERS = ["aa.example", "dl.example", "ua.example"]
IDENTITIES = {name: worlds.AUTHORITY.issue(name) for name in HOLDERS}
TOWNS = ["east", "north", "west"]
THEIRS = [f"91440300MA5F{n:04d}{'XYZ'[n % 3]}K" for n in range(60)]
NAMES = [f"Lianhe Trading {n * 7919 % 10007:05d} Ltd" for n in range(60)]
REVENUES = [4_219_372_661 + n * 98_765_431 for n in range(60)]
OURS = [*THEIRS[10:40], *(f"91310115MB7Q{n:04d}WL" for n in range(20))]
AMOUNTS = [8_831_294_817 + n * 12_345_679 for n in range(50)]
MOST = 10**11
KEY_BYTES = 16  # of a key's digest
LEAST = 8  # bytes of a spelling
URLSAFE = bytes.maketrans(b"+/", b"-_")

COMPANIES = pa.table(
    {
        "code": THEIRS,
        "name": NAMES,
        "town": [TOWNS[n % 3] for n in range(60)],
        "revenue": REVENUES,
        "half": [one / 2 for one in REVENUES],
    }
)
CUSTOMERS = pa.table(
    {"code": OURS, "amount": AMOUNTS, "name": [*NAMES[5:35], *(f"Minsheng Works {n:04d}" for n in range(20))]}
)
SPEC = aggregation.Spec(
    columns={"revenue": aggregation.Bounds(0, MOST)}, statistics=["count", "sum"], max_rows=100, max_parties=4
)


class Scene:
    """Three nodes that offer everything, and what was said aloud."""

    def __init__(self, directory):
        self.directory, self.clock = directory, FakeClock(int(time.time()))
        self.brokers, self.nodes, self.said = {}, {}, []
        for name in HOLDERS:
            self.brokers[name] = Broker.open(directory / name / "book", IDENTITIES[name], clock=self.clock)
            self.nodes[name] = Node(IDENTITIES[name], self.brokers[name], [self.offered(directory / name)])

    def offered(self, folder, **changes):
        made = {
            "keys": ["code", ["code", "town"], "name"],
            "labels": {"revenue": 8, "name": 40},
            "sums": Summable({"revenue": psi.Bounds(0, MOST)}, {"town": TOWNS}, min_group=4),
            "verified": Published(
                ["revenue >= 5000000000", "match(revenue)"], "code", folder / "tables", download=True
            ),
            "statistics": Rules(by={"town": ()}, columns=["revenue"]),
            "unit": dp.PrivacyUnit("code", groups=1, rows_per_group=1, known={"town": TOWNS}),
            "limits": {"rho": Limit(total=10**13), "delta": Limit(total=10**13)},
            "aggregates": ["revenue"],
            "evaluated": folder / "evaluated",
            "changing": folder / "changing",
        }
        return Dataset("companies", COMPANIES, version="1", **(made | changes))

    def session(self, name=HOLDERS[0], plan=None, **claims):
        node = self.nodes[name]
        granted = {
            "issuer": IDENTITIES[name].thumbprint,
            "audience": name,
            "asset": AssetClaim(id="companies", classification="general", grade="general", personal=False),
            "operations": {one.operation.id: Bounds() for one in COMPUTATIONS},
            "outputs": list(OutputForm),
            "purposes": ["credit"],
            "limits": {"calls": Limit(total=1000), "rho": Limit(total=10**13)},
        }
        claims = grants.new_grant(
            **({"subject": worlds.AIRLINE.name, "subject_key": worlds.AIRLINE.thumbprint} | granted),
            contingency="0" * 64,
            now=self.clock.now(),
            **claims,
        )
        channel = LocalChannel(node, caller=worlds.AIRLINE.name, peer=name)
        return Session(
            FaultyChannel(channel, plan or {}),
            identity=worlds.AIRLINE,
            grant=grants.sign(claims, IDENTITIES[name].key),
            state=self.directory / f"state-{name}",
        )

    def fails(self, ask, *kinds):
        """Note what somebody is told who does something wrong; that it goes wrong is part of the test."""
        with pytest.raises(kinds or TrustcomputeError) as caught:
            ask()
        error = caught.value
        self.said += [str(error), json.dumps(error.to_wire())]
        self.said += traceback.format_exception(error)

    def files(self):
        for path in sorted(self.directory.rglob("*")):
            if path.is_file():
                yield str(path.relative_to(self.directory)), path.read_bytes()

    def close(self):
        for name in HOLDERS:
            self.nodes[name].close()
            with contextlib.suppress(TrustcomputeError):
                self.brokers[name].close()


@pytest.fixture
def scene(tmp_path):
    made = Scene(tmp_path)
    yield made
    made.close()


def intersections(session):
    """Each family of protocols; rows, labels, counts, both sides; keys in order of preference; changes; lookups."""
    on = {"on": "code"}
    for protocol in ("psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1"):
        assert session.intersect("companies", CUSTOMERS, **on, protocol=protocol).count == 30
    labelled = session.intersect("companies", CUSTOMERS, **on, labels=["revenue", "name"])
    assert labelled.table()["revenue"].to_pylist() == REVENUES[10:40]
    session.intersect("companies", CUSTOMERS, **on, output="count")
    joint = session.intersect("companies", CUSTOMERS, **on, reveal="both", protocol="psi.ecdh.v1").job
    session.cascade("companies", CUSTOMERS, on=psi.InOrder("code", "name"))
    session.intersect_changes("companies", CUSTOMERS, **on)
    session.intersect_changes("companies", {"code": OURS[:45]}, **on)
    session.lookup("companies", CUSTOMERS, **on)
    return joint


def sums(scene, session, joint):
    found = session.intersect_sum("companies", CUSTOMERS, on="code", values=["revenue"], by="town")
    assert found.count == 30
    others = [scene.session(name) for name in HOLDERS[1:]]
    jobs = {session.grant.aud: joint} | {
        one.grant.aud: one.intersect(
            "companies", CUSTOMERS, on="code", reveal="both", protocol="psi.ecdh.v1"
        ).job
        for one in others
    }
    assert tc.aggregate([session, *others], SPEC).exact("sum", "revenue") == 3 * sum(REVENUES)
    matched = tc.aggregate([session, *others], SPEC, matched=jobs)
    assert matched.exact("sum", "revenue") == 3 * sum(REVENUES[10:40])


def answers(scene, session):
    asked = {"keys": OURS[:3] + OURS[-2:]}
    predicate = "revenue >= 5000000000"
    [table] = [
        one
        for one in scene.nodes[HOLDERS[0]]._datasets["companies"].verification.by_id.values()
        if one.descriptor.predicate == predicate
    ]
    check = proof.issue(table.id, table.masked.database, Rng.from_os(), worlds.RIVAL.key)
    for options in ({}, {"check": check}, {"check": check, "mode": "batch"}, {"mode": "download"}):
        assert len(session.verify("companies", predicate, **asked, **options).codes) == 5
    rows = {"code": OURS[:3], "revenue": [REVENUES[10], 1, 2]}
    session.verify(
        "companies", match=["revenue", "code"], rows=rows, on={"code": "code", "revenue": "revenue"}
    )
    session.statistics("companies", "revenue", by="town")
    session.release("companies", [dp.count(), dp.mean("revenue", 0, MOST)], by="town", budget=dp.zcdp("0.5"))


def failures(scene, session):
    """What is wrong with tables, parameters, data and messages, at each layer."""
    on = {"on": "code"}
    wrong = {"code": [*OURS[:5], None], "amount": AMOUNTS[:6]}
    scene.fails(lambda: session.intersect("companies", wrong, on={"amount": "code"}))
    scene.fails(lambda: session.intersect("companies", wrong, on="nothing"))
    scene.fails(lambda: session.intersect("companies", CUSTOMERS, **on, labels=["half"]))
    scene.fails(lambda: session.intersect("companies", CUSTOMERS, **on, purpose="marketing"))
    scene.fails(lambda: session.intersect("companies", CUSTOMERS, **on, pad_to=3))
    scene.fails(lambda: session.intersect_sum("companies", {"code": OURS[:1]}, on="code", values=["half"]))
    scene.fails(lambda: session.verify("companies", f"revenue >= '{NAMES[0][:5]}'", keys=OURS[:1]))
    scene.fails(lambda: session.verify("companies", "revenue >= 5000000000", keys=[1.5, OURS[0]]))
    scene.fails(
        lambda: session.verify(
            "companies",
            match=["revenue", "code"],
            rows={"code": OURS[:2], "revenue": OURS[:2]},
            on={"code": "code"},
        )
    )
    scene.fails(lambda: session.statistics("companies", "half", by="code"))
    scene.fails(lambda: session.release("companies", [dp.count()], by="code", budget=dp.zcdp("50")))
    scene.fails(lambda: session.lookup("companies", {"code": AMOUNTS}, **on))
    narrow = aggregation.Spec(columns={"revenue": aggregation.Bounds(0, 9)}, statistics=["sum"], max_rows=10)
    scene.fails(lambda: tc.aggregate([scene.session(name) for name in HOLDERS], narrow))
    for fault in ("lose answer", "flip answer", "flip request", "cut request"):
        for protocol in ("psi.ecdh.v1", "psi.vole.v1"):
            spoilt = scene.session(plan=dict.fromkeys(range(200), fault))
            scene.fails(
                lambda spoilt=spoilt, protocol=protocol: (
                    spoilt.intersect("companies", CUSTOMERS, **on, protocol=protocol).receipt
                )
            )
    folder = scene.directory / "unusable"
    for changes in (
        {"labels": {"name": 8}},
        {"sums": Summable({"revenue": psi.Bounds(0, 9)}, {}, min_group=4)},
        {"verified": Published(["name >= 5"], "code", folder)},
        {"aggregates": ["nothing"]},
    ):
        offered = scene.offered(folder, **changes)
        scene.fails(lambda offered=offered: HeldDataset(offered, None, signer=worlds.REGISTRY.key))


def spellings(values):
    """What a value may look like, at least as long as cannot be there by chance."""
    keys = tables.keys({"values": values}, "values")
    for value, digest in zip(values, keys.digests[keys.codes], strict=True):
        if isinstance(value, int):
            plain = [value.to_bytes(8, "little"), value.to_bytes(8, "big"), struct.pack("<d", float(value))]
        else:
            plain = [value.encode("utf-16-le"), digest.tobytes()]
            plain += [made(value.encode()).digest() for made in (hashlib.sha256, hashlib.sha1, hashlib.md5)]
        text = str(value).encode()
        yield from ((value, one) for one in (text, text.lower()))
        for one in (text, *plain):
            yield value, one.hex().encode()
            for shift in range(3):  # base64, at any place of what is encoded
                encoded = base64.b64encode(bytes(shift) + one)[4 if shift else 0 : -4]
                yield from ((value, each) for each in (encoded, encoded.translate(URLSAFE)))
        yield from ((value, one[:16]) for one in plain)


def scan(dictionary, scanned):
    """(where, value) of whatever of the dictionary is there: by the first bytes of all spellings at once."""
    firsts = np.unique(
        np.array([int.from_bytes(one[:LEAST], "little") for one in dictionary], dtype=np.uint64)
    )
    by_first = defaultdict(list)
    for spelt in dictionary:
        by_first[spelt[:LEAST]].append(spelt)
    found = set()
    for name, data in scanned.items():
        if len(data) < LEAST:
            continue
        places = sum(
            np.lib.stride_tricks.sliding_window_view(np.frombuffer(data, np.uint8), LEAST)[:, at].astype(
                np.uint64
            )
            << np.uint64(8 * at)
            for at in range(LEAST)
        )
        at = np.searchsorted(firsts, places).clip(max=len(firsts) - 1)
        for hit in np.flatnonzero(firsts[at] == places):
            for spelt in by_first[data[hit : hit + LEAST]]:
                if data[hit : hit + len(spelt)] == spelt:
                    found.add((name, dictionary[spelt], spelt))
    return found


def own_digest(name, value, spelt):
    """Digests of one's own keys in a file that is for them, and for its owner alone, as the threat model says: a table
    that is followed, evaluations that were made, the opening of what was asked."""
    own = OURS if name.startswith("state-") else [*THEIRS, *NAMES]
    made_for = "/changing-" in name or name.endswith((".followed", ".evaluated", ".opening"))
    return made_for and value in own and len(spelt) in (KEY_BYTES, 4 * KEY_BYTES)


def test_no_identifier_and_no_value_is_left_anywhere_by_any_layer(scene, tmp_path, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    session = scene.session()
    joint = intersections(session)
    sums(scene, session, joint)
    answers(scene, session)
    failures(scene, session)

    for name in HOLDERS:
        broker = scene.brokers[name]
        broker.audit()
        broker.export(tmp_path / name / "tiles")
        broker.backup(tmp_path / name / "copy")
        (tmp_path / name / "statement").write_text(
            str(broker.statement(0, scene.clock.now() + 1)) + repr(broker.entries())
        )
    records = [logging.Formatter("%(name)s %(message)s").format(one) for one in caplog.records]
    said = "\n".join([*scene.said, *records, *capfd.readouterr(), repr(session)])
    scanned = dict(scene.files()) | {"what was said": said.encode()}

    dictionary = {
        spelt: value
        for values in (THEIRS, OURS, NAMES, CUSTOMERS["name"].to_pylist(), REVENUES, AMOUNTS)
        for value, spelt in spellings(values)
        if len(spelt) >= LEAST
    }
    found = {one for one in scan(dictionary, scanned) if not own_digest(*one)}
    assert not found, sorted({(name, len(spelt)) for name, _, spelt in found})
    for planted in (
        OURS[3].encode(),
        THEIRS[50].encode(),
        REVENUES[7].to_bytes(8, "little"),
        NAMES[9].encode(),
    ):
        for spelt in (planted, base64.b64encode(b'{"x":"' + planted + b'"}'), planted.hex().encode()):
            assert scan(dictionary, {"planted": b"before" + spelt + b"after"}), (
                "a scan that finds nothing shows nothing"
            )
    assert len(scene.said) > 40 and len(scanned) > 40
    types = {entry.type for name in HOLDERS for entry in scene.brokers[name].entries()}
    assert {"job.posted", "job.denied", "job.countersigned"} <= types
    posted = {e.fields["operation"] for e in scene.brokers[HOLDERS[0]].entries() if e.type == "job.posted"}
    assert len(posted) >= 13, f"not every layer ran: {sorted(posted)}"
