"""How a grant stands: active, suspended, ending, ended, revoked; and when it is to be reviewed next.

    active ⇄ suspended        nothing new is allowed while suspended; what is open may end
    active, suspended → ending → ended        given up: nothing new, and ended once no job is open under it
    any → revoked             for good; open jobs are stopped too

A link of a chain that does not stand stops everything below it. Read by ``policy`` and ``commands``; changed by
signed orders (``order``), which the book keeps as notices.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from trustcompute.broker.grant import VerifiedGrant
from trustcompute.broker.notice import Notice, topics

ACTIVE: Final = "active"
SUSPENDED: Final = "suspended"
ENDING: Final = "ending"
ENDED: Final = "ended"
REVIEWED: Final = "reviewed"


@dataclass(frozen=True, slots=True)
class Standing:
    """Of a grant with all it was delegated from. review: seconds, the earliest date that a review is due."""

    revoked: bool = False
    suspended: bool = False
    exited: bool = False
    review: int | None = None


def of(
    grant: VerifiedGrant, revoked: Callable[[str], bool], notice: Callable[[str], Notice | None]
) -> Standing:
    """How a chain stands. revoked, notice: what the book has about a link, by hash or by name."""
    states = set()
    reviews = []
    for link in grant.chain:
        standing, reviewed = (notice(name) for name in topics(link.hash))
        if standing is not None:
            states.add(standing.state)
        date = _own_review(link)
        if date is not None:
            reviews.append(date if reviewed is None else max(date, reviewed.version))
    return Standing(
        revoked=any(revoked(link.hash) for link in grant.chain),
        suspended=SUSPENDED in states,
        exited=not states.isdisjoint((ENDING, ENDED)),
        review=min(reviews, default=None),
    )


def _own_review(link: VerifiedGrant) -> int | None:
    """The date a link sets itself, not one that it has from its parent: that one is renewed there."""
    date = link.claims.review
    return None if link.parent is not None and date == link.parent.claims.review else date
