"""Notices: what signed documents say for the time being, beside the log, which says what they said when.

Written with the entry that records the document, read in every transaction that decides. The rules of a node
(``rules``) and the standing of grants (``standing``) are kept as notices.
"""

from __future__ import annotations

from typing import Final, NamedTuple

RULES: Final = "rules"  # the state of a notice that is a deny-list or a policy
SUPERSEDED: Final = "superseded"  # of one that the same operator laid down with an older key


class Notice(NamedTuple):
    """Something signed that holds until a newer one of the same name comes.

    name: ``denylist/`` or ``policy/`` and the issuer, ``grant/`` or ``review/`` and the grant's hash; state: what
    holds, in a word; version: grows with each newer one; hash: of the token; entry: index of the entry that says so.
    """

    name: str
    state: str
    version: int
    hash: str
    token: str
    entry: int


def topics(grant: str) -> tuple[str, str]:
    """Names of the notices about a grant: its standing, and its last review."""
    return f"grant/{grant}", f"review/{grant}"
