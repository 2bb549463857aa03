"""One intersection of two given tables over mutual TLS, through node, broker and session."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from trustcompute.broker import grant as grants
from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import AssetClaim
from trustcompute.node import Dataset, Node, connect
from trustcompute.primitives.identity import CertificateAuthority

AUTHORITY = CertificateAuthority.create("test data space")
HOLDER, ASKER = AUTHORITY.issue("holder.example"), AUTHORITY.issue("asker.example")


LOOKUP = "psi.lookup.v1"


def intersect(pair, directory: Path, **options):
    evaluated = directory / "tables" if options.get("protocol") == LOOKUP else None
    dataset = Dataset("right", pair.right, version="1", keys=[list(pair.on.values())], evaluated=evaluated)
    grant = grants.sign(
        grants.new_grant(
            issuer=HOLDER.thumbprint,
            audience=HOLDER.name,
            subject=ASKER.name,
            subject_key=ASKER.thumbprint,
            asset=AssetClaim(id="right", classification="general", grade="general", personal=False),
            operations=["psi.ecdh.v1", "psi.dh.v1", "psi.vole.v1", "psi.vole-malicious.v1", LOOKUP],
            purposes=["test"],
            outputs=["matched_ids", "count"],
            contingency="0" * 64,
            now=int(time.time()),
        ),
        HOLDER.key,
    )
    with (
        Broker.open(Path(tempfile.mkdtemp(dir=directory)), HOLDER) as broker,
        Node(HOLDER, broker, [dataset]) as node,
        node.serve() as server,
        connect(server.url, identity=ASKER, grant=grant) as session,
    ):
        if evaluated is not None:
            return session.lookup("right", pair.left, on=pair.on)
        return session.intersect("right", pair.left, on=pair.on, **options)
