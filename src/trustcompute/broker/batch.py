"""Verifying many requests at once, outside the book's lock, and in other processes where there are some.

Called by ``Broker.verify_requests``. An Ed25519 verification takes about as long as everything else that a job
costs when it is committed in a group, so what a second processor can take over is this. Grants are verified
once each in the calling process; what travels is text.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

from trustcompute.broker import grant as grants
from trustcompute.broker import request
from trustcompute.broker.grant import VerifiedGrant
from trustcompute.broker.request import Request, VerifiedRequest
from trustcompute.errors import GrantError
from trustcompute.primitives.signing import VerifyKey, token_hash

CHUNK: Final = 64  # requests that one call of an executor takes
Checked = Request | tuple[str, str]  # the claims, or message and field of what is wrong with them


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it arrived. token: the request's; peer: the name that TLS proved; grant: the grant's token."""

    token: str
    peer: str
    grant: str


def verify(
    asked: Sequence[Asked],
    verified: Callable[[str], VerifiedGrant],
    audience: str,
    now: int,
    executor: Executor | None,
) -> Iterator[VerifiedRequest | GrantError]:
    """Each request verified, or why not, in order, as they are done; an executor begins with all at once.

    verified: verifies a grant, or raises ``GrantError``.
    """
    allowed = [_grant(each, verified) for each in asked]
    sound = [each for each, found in zip(asked, allowed, strict=True) if isinstance(found, VerifiedGrant)]
    jobs = [
        ([(each.token, each.peer, each.grant) for each in sound[start : start + CHUNK]], audience, now)
        for start in range(0, len(sound), CHUNK)
    ]
    chunks = map(check, jobs) if executor is None else executor.map(check, jobs)
    checked = itertools.chain.from_iterable(chunks)
    for each, found in zip(asked, allowed, strict=True):
        yield found if isinstance(found, GrantError) else _made(each.token, found, next(checked))


def check(job: tuple[Sequence[tuple[str, str, str]], str, int]) -> list[Checked]:
    """What an executor runs: verify (token, peer, grant) triples whose grants are known to verify."""
    triples, audience, now = job
    return [_checked(token, peer, grant, audience, now) for token, peer, grant in triples]


def _checked(token: str, peer: str, grant: str, audience: str, now: int) -> Checked:
    try:
        return request.verify(token, grant=_read(grant), audience=audience, peer=peer, now=now).claims
    except GrantError as error:
        return str(error), error.field


@functools.lru_cache(maxsize=64)
def _read(token: str) -> VerifiedGrant:
    """A grant that the calling process has verified."""
    return VerifiedGrant(grants.read(token), token, token_hash(token))


@functools.lru_cache(maxsize=1024)
def _key(x: str) -> VerifyKey:
    return VerifyKey.from_x(x)


def _grant(asked: Asked, verified: Callable[[str], VerifiedGrant]) -> VerifiedGrant | GrantError:
    try:
        return verified(asked.grant)
    except GrantError as error:
        return error


def _made(token: str, grant: VerifiedGrant, checked: Checked) -> VerifiedRequest | GrantError:
    if isinstance(checked, tuple):
        return GrantError(*checked)
    return VerifiedRequest(checked, token, token_hash(token), grant, _key(checked.key))
