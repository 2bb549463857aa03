"""``trustcompute verify consent``: a subject asks for tokens, the holder issues them blindly, the subject takes them.

The subject runs ``request`` and ``finish``, the holder ``issue``, after looking at who the subject is. Whoever is
given a token asks with ``trustcompute verify ask --consent``.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Annotated, Any, Final

import numpy as np
import typer
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from trustcompute import verification
from trustcompute.cli.output import err
from trustcompute.cli.settings import load_settings, read_bytes, read_certificate, read_text, write_text
from trustcompute.errors import ParameterError, VerificationError
from trustcompute.node.verification import consents_of
from trustcompute.primitives import canonical, signing
from trustcompute.primitives.identity import Identity, peer_key
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import TokenError
from trustcompute.verification import consent as consents
from trustcompute.verification.consent import MAX_TOKENS, About, Issued, Wish

TYPE: Final = "tc-consent+jwt"
MAX_FILE: Final = 64 * 1024

app = typer.Typer(help="Tokens by which a subject consents to questions about it.", no_args_is_help=True)

Rows = Annotated[
    list[Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]], Field(min_length=1, max_length=MAX_TOKENS)
]


class Request(BaseModel):
    """What the holder is shown of a wish."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)

    dataset: Annotated[str, Field(min_length=1, max_length=256)]
    predicate: Annotated[str, Field(min_length=1, max_length=128)]
    expires: Annotated[int, Field(ge=0, lt=10**12)]
    blinded: Rows

    @property
    def about(self) -> About:
        return About(self.dataset, self.predicate, self.expires)


class Kept(Request):
    """A wish as the subject keeps it: secret."""

    nonces: Rows
    blinds: Rows


class Answer(Request):
    """What the holder issued and signed. blinded: what it was issued for."""

    public: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    evaluated: Rows
    proof: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


@app.command("request")
def request(
    dataset: Annotated[str, typer.Argument(help="The dataset's id.")],
    predicate: Annotated[str, typer.Argument(help="What may be asked, for example 'seats >= 100'.")],
    out: Annotated[Path, typer.Option(help="Write the request here: for the holder.")],
    secret: Annotated[Path, typer.Option(help="Keep the rest here: nobody else's business.")],
    count: Annotated[int, typer.Option(help="Tokens: one a question.")] = 1,
    days: Annotated[
        int, typer.Option(help="How long they are good; the same as others ask for hides best.")
    ] = 30,
) -> None:
    """Ask for tokens. They expire at the end of a day (UTC)."""
    if not 1 <= days <= 365:
        raise ParameterError(f"--days must be from 1 to 365, not {days}")
    expires = (int(time.time()) // 86400 + days) * 86400
    wish = consents.wish(About(dataset, str(verification.parse(predicate)), expires), count, Rng.from_os())
    said = {
        "dataset": dataset,
        "predicate": wish.about.predicate,
        "expires": expires,
        "blinded": _hex(wish.blinded),
    }
    write_text(out, canonical.dumps(said).decode())
    with os.fdopen(os.open(secret, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(canonical.dumps(said | {"nonces": _hex(wish.nonces), "blinds": _hex(wish.blinds)}))
    err.print(f"{count} tokens for {wish.about.predicate!r} of {dataset}: give {out} to the holder")


@app.command("issue")
def issue(
    settings: Annotated[Path, typer.Argument(help="The node's configuration (TOML).")],
    wanted: Annotated[Path, typer.Argument(help="A subject's request.")],
    out: Annotated[Path, typer.Option(help="Write what was issued here: for the subject.")],
) -> None:
    """Issue tokens to a subject whose identity was looked at."""
    asked = _parse(Request, read_bytes(wanted))
    config = load_settings(settings)
    known = {one.id: one for one in config.datasets()}
    published = known[asked.dataset].verified if asked.dataset in known else None
    if published is None or not published.consent:
        raise ParameterError(f"{settings} has no dataset {asked.dataset!r} that takes consents")
    if asked.predicate not in {str(verification.parse(text)) for text in published.predicates}:
        raise ParameterError(f"dataset {asked.dataset!r} does not answer {asked.predicate!r}")
    holder = consents_of(published, asked.dataset)
    made = holder.issue(asked.about, _rows(asked.blinded), Rng.from_os(), now=int(time.time()))
    document = asked.model_dump() | {
        "public": made.public.hex(),
        "evaluated": _hex(made.evaluated),
        "proof": made.proof.hex(),
    }
    write_text(out, signing.sign(TYPE, document, Identity.load(config.path(config.identity)).key))


@app.command("finish")
def finish(
    secret: Annotated[Path, typer.Argument(help="What was kept of the request.")],
    issued: Annotated[Path, typer.Argument(help="What the holder issued.")],
    holder: Annotated[Path, typer.Option(help="The holder's certificate (PEM).")],
    out: Annotated[Path, typer.Option(help="Write the tokens here, one a line.")],
) -> None:
    """Check what was issued, and take the tokens."""
    kept = _parse(Kept, read_bytes(secret))
    try:
        answer = Answer.model_validate(
            signing.verify(read_text(issued), TYPE, peer_key(read_certificate(holder)))
        )
    except (TokenError, ValidationError) as error:
        raise VerificationError("what was issued is not what the holder signs") from error
    if (answer.about, answer.blinded) != (kept.about, kept.blinded):
        raise VerificationError("what was issued is for another request")
    wish = Wish(kept.about, _rows(kept.nonces), _rows(kept.blinds), _rows(kept.blinded))
    tokens = wish.finish(
        Issued(bytes.fromhex(answer.public), _rows(answer.evaluated), bytes.fromhex(answer.proof))
    )
    write_text(out, "\n".join(map(str, tokens)) + "\n")
    out.chmod(0o600)
    err.print(f"{len(tokens)} tokens under the key {answer.public}: others who got tokens see the same key")


def _parse(kind: Any, data: bytes) -> Any:
    try:
        return kind.model_validate(canonical.loads(data, limit=MAX_FILE))
    except (ValidationError, VerificationError) as error:
        raise ParameterError(f"this is no {kind.__name__.lower()} of consents") from error


def _hex(rows: Any) -> list[str]:
    return [row.tobytes().hex() for row in rows]


def _rows(texts: list[str]) -> Any:
    return np.frombuffer(bytes.fromhex("".join(texts)), dtype=np.uint8).reshape(-1, 32)
