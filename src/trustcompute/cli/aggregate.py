"""``trustcompute aggregate``: one sum over the datasets of several nodes."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel, ConfigDict

from trustcompute import node
from trustcompute.aggregation import Bounds, Noise, Spec
from trustcompute.aggregation.planner import SCHEMES
from trustcompute.cli.asking import Asking, takes
from trustcompute.cli.output import working
from trustcompute.cli.settings import read_text, read_toml
from trustcompute.cli.writing import check_out
from trustcompute.errors import ParameterError
from trustcompute.primitives.identity import Identity


class BoundsSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    low: int | str
    high: int | str
    scale: int = 1


class NoiseSettings(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    rho: str
    rows_per_unit: int = 1
    colluders: int = 0


class SpecSettings(BaseModel):
    """A specification as a TOML file: the fields of ``aggregation.Spec``."""

    model_config = ConfigDict(extra="forbid", strict=True)

    columns: dict[str, BoundsSettings] = {}
    statistics: list[str] = ["count", "sum", "mean"]
    by: dict[str, list[str | int | bool]] = {}
    weight: str | None = None
    histograms: dict[str, list[int | str]] = {}
    max_parties: int = 16
    max_rows: int = 10**6
    min_parties: int = 3
    noise: NoiseSettings | None = None
    reveal: str = "aggregator"
    length: int | None = None

    def spec(self) -> Spec:
        fields: dict[str, Any] = self.model_dump()
        fields["columns"] = {name: Bounds(**one.model_dump()) for name, one in self.columns.items()}
        fields["noise"] = None if self.noise is None else Noise(**self.noise.model_dump())
        return Spec(**fields)


@takes(Asking)
def aggregate(
    asking: Asking,
    spec: Annotated[Path, typer.Argument(help="The specification, a TOML file.")],
    party: Annotated[
        list[str],
        typer.Option(help="A contributor: URL=GRANT, its node's address and the grant's file; repeat."),
    ],
    scheme: Annotated[str, typer.Option(help=f"How: {', '.join(SCHEMES)}.")] = "masked",
    key_holder: Annotated[
        str | None,
        typer.Option(help="Who opens the sum, of other schemes than masked: URL=GRANT, never ourselves."),
    ] = None,
    matched: Annotated[
        list[str],
        typer.Option(help="Add up rows only that our finished job matched: NAME=JOB, for every contributor."),
    ] = [],
) -> None:
    """Add up what several nodes hold; no part of it is opened by itself."""
    check_out(asking.out)
    wanted, me = load_spec(spec), Identity.load(asking.identity)
    how: Any = scheme

    def session(text: str) -> node.Session:
        url, grant = parse_party(text)
        return node.connect(url, identity=me, grant=read_text(grant).strip(), state=asking.state)

    with ExitStack() as stack, working(f"adding up {len(party)} parties"):
        sessions = [stack.enter_context(session(one)) for one in party]
        opener = None if key_holder is None else stack.enter_context(session(key_holder))
        found = node.aggregate(
            sessions,
            wanted,
            scheme=how,
            key_holder=opener,
            matched=dict(map(parse_matched, matched)) if matched else None,
            purpose=asking.purpose,
            scenario=asking.scenario,
        )
    asking.close(
        found,
        {
            "scheme": found.scheme,
            "parties": list(found.parties),
            "key_holder": found.key_holder or None,
            "dropped": dict(found.dropped),
        },
        [
            ("scheme", found.scheme),
            ("in it", ", ".join(found.parties)),
            *((f"without {name}", why) for name, why in found.dropped.items()),
            *([("opened by", found.key_holder)] if found.key_holder else []),
        ],
        cost=None,
        answer=found.to_arrow(),
    )


def parse_party(text: str) -> tuple[str, Path]:
    """``URL=GRANT``."""
    url, _, grant = text.partition("=")
    if not grant or "://" not in url:
        raise ParameterError(f"a party is grpc+tls://host:port=grant-file, not {text!r}")
    return url, Path(grant)


def parse_matched(text: str) -> tuple[str, str]:
    """``NAME=JOB``."""
    name, _, job = text.partition("=")
    if not name or not job:
        raise ParameterError(f"--matched takes contributor=job, not {text!r}")
    return name, job


def load_spec(path: Path) -> Spec:
    """Raises ``ParameterError`` naming the setting that is wrong."""
    return read_toml(path, SpecSettings).spec()
