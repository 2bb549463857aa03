"""Rows of the book, the same for every kind of SQL: a job and an asset, and the columns they are kept in.

What many rows share (amounts, accounts, assets) is parsed once and remembered by its text.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from typing import Any, Final

from trustcompute.broker.grant import Limit
from trustcompute.broker.job import Fault, JobRecord, JobState, Release
from trustcompute.broker.meter import parse_usage, usage_document
from trustcompute.broker.policy import Asset, Reason
from trustcompute.broker.rules import Reference
from trustcompute.primitives import canonical
from trustcompute.protocol.operation import Usage

FIXED: Final = (
    "id, request, grant_hash, subject, asker, recipient, payer, peer, key, operation, dataset, purpose, "
    "accounts, day, reserved, reasons, rules"
)
CHANGING: Final = "state, lease, charged, releases, detail, fault, entry, countersigned"
REMEMBERED: Final = 4096


def fixed(job: JobRecord) -> tuple[Any, ...]:
    """The columns ``FIXED`` of a job."""
    return (
        job.id,
        job.request,
        job.grant,
        job.subject,
        job.asker,
        job.recipient,
        job.payer,
        job.peer,
        job.key,
        job.operation,
        job.dataset,
        job.purpose,
        _accounts_text(job.accounts),
        job.window,
        _usage_text(job.reserved),
        "[]" if not job.reasons else json.dumps([reason.to_document() for reason in job.reasons]),
        "[]" if not job.rules else _rules_text(job.rules),
    )


def changing(job: JobRecord) -> tuple[Any, ...]:
    """The columns ``CHANGING`` of a job."""
    return (
        job.state.value,
        job.lease,
        None if job.charged is None else _usage_text(job.charged),
        _releases_text(job),
        job.detail,
        None if job.fault is None else job.fault.value,
        job.entry,
        job.countersigned,
    )


def job_of(row: tuple[Any, ...]) -> JobRecord:
    """The job of a row of the columns ``FIXED`` and ``CHANGING``."""
    return JobRecord(
        id=row[0],
        request=row[1],
        grant=row[2],
        subject=row[3],
        asker=row[4],
        recipient=row[5],
        payer=row[6],
        peer=row[7],
        key=row[8],
        operation=row[9],
        dataset=row[10],
        purpose=row[11],
        accounts=_accounts(row[12]),
        window=row[13],
        reserved=_usage(row[14]),
        reasons=_reasons(row[15]),
        rules=_rules(row[16]),
        state=JobState(row[17]),
        lease=row[18],
        charged=None if row[19] is None else _usage(row[19]),
        releases=_releases(row[20]),
        detail=row[21],
        fault=None if row[22] is None else Fault(row[22]),
        entry=row[23],
        countersigned=row[24],
    )


def asset_row(asset: Asset) -> str:
    """An asset's description as it is kept."""
    document: dict[str, Any] = {
        "version": asset.version,
        "schema_hash": asset.schema_hash,
        "classification": asset.classification,
        "grade": asset.grade,
        "personal": asset.personal,
        "rows": asset.rows,
        "limits": _limits_row(asset.limits),
    }
    if asset.epoch:
        document["epoch"] = asset.epoch
    if asset.per_recipient:
        document["per_recipient"] = _limits_row(asset.per_recipient)
    if asset.tables:
        document["tables"] = list(asset.tables)
    return json.dumps(document)


def _limits_row(limits: Mapping[str, Limit]) -> dict[str, Any]:
    return {unit: limit.to_document() for unit, limit in limits.items()}


@functools.lru_cache(maxsize=REMEMBERED)
def asset_of(name: str, text: str) -> Asset:
    """The asset of a row."""
    document = json.loads(text)
    return Asset(
        id=name,
        limits=_limits(document.pop("limits")),
        per_recipient=_limits(document.pop("per_recipient", {})),
        tables=tuple(document.pop("tables", ())),
        **document,
    )


def _limits(document: dict[str, Any]) -> dict[str, Limit]:
    return {unit: Limit.model_validate(limit) for unit, limit in document.items()}


@functools.lru_cache(maxsize=REMEMBERED)
def _usage_text(usage: Usage) -> str:
    return json.dumps(usage_document(usage))


@functools.lru_cache(maxsize=REMEMBERED)
def _usage(text: str) -> Usage:
    return parse_usage(json.loads(text))


@functools.lru_cache(maxsize=REMEMBERED)
def _accounts_text(accounts: tuple[str, ...]) -> str:
    return json.dumps(accounts)


@functools.lru_cache(maxsize=REMEMBERED)
def _accounts(text: str) -> tuple[str, ...]:
    return tuple(json.loads(text))


@functools.lru_cache(maxsize=REMEMBERED)
def _rules_text(rules: tuple[Reference, ...]) -> str:
    return json.dumps([reference.to_document() for reference in rules])


@functools.lru_cache(maxsize=REMEMBERED)
def _rules(text: str) -> tuple[Reference, ...]:
    return tuple(Reference.model_validate(reference) for reference in json.loads(text))


def _releases_text(job: JobRecord) -> str:
    if not job.releases:
        return "[]"
    rows = [[r.run, r.turn, r.frames_hash, r.transcript, r.outbox] for r in job.releases]
    return canonical.dumps(rows).decode()


def _releases(text: str) -> tuple[Release, ...]:
    return () if text == "[]" else tuple(Release(*release) for release in json.loads(text))


def _reasons(text: str) -> tuple[Reason, ...]:
    return () if text == "[]" else tuple(Reason(**reason) for reason in json.loads(text))
