"""The consumer's side: ``connect`` to a node under a grant, and the verbs it can be asked."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute import dp
from trustcompute.broker import delegation
from trustcompute.broker.request import ONE_PARTY, Parties
from trustcompute.dp.groups import By
from trustcompute.errors import ParameterError, Refused
from trustcompute.node import (
    authority,
    bulk,
    cascade,
    delta,
    intersection,
    planned,
    releasing,
    statistics,
    summing,
)
from trustcompute.node.authority import Explained
from trustcompute.node.bulk import MeteredFileIntersection
from trustcompute.node.cascade import MeteredCascade
from trustcompute.node.client import Client
from trustcompute.node.documents import KeyChoice, Quote, QuoteRequest
from trustcompute.node.intersection import MeteredIntersection
from trustcompute.node.releasing import MeteredRelease, MeteredReleaseQuote
from trustcompute.node.statistics import MeteredStatistics
from trustcompute.node.summing import MeteredSum, SumAsked
from trustcompute.node.verifying import Kept, MeteredVerification, prepare, verify
from trustcompute.primitives.canonical import MAX_INTEGER
from trustcompute.primitives.identity import Identity
from trustcompute.psi import planner
from trustcompute.psi.in_order import InOrder
from trustcompute.psi.intersection import On
from trustcompute.psi.padding import PadTo
from trustcompute.psi.sums.terms import Noise
from trustcompute.psi.table import load_values, store_values
from trustcompute.tables.progress import Callback
from trustcompute.transport import Channel, FlightChannel
from trustcompute.transport.client import TURN_SECONDS
from trustcompute.verification import Check
from trustcompute.verification.planner import Mode
from trustcompute.verification.querylog import Opening


def connect(
    url: str,
    *,
    identity: Identity,
    grant: str,
    state: Path | str | None = None,
    executor: Executor | None = None,
    territory: str | None = None,
    parties: Parties = ONE_PARTY,
    turn_seconds: float = TURN_SECONDS,
) -> Session:
    """Open a session with the node at ``url`` (``grpc+tls://host:port``) under a grant (its token, or chain of tokens).

    The node must present a certificate for the grant's audience, from the authority in ``identity``.
    state: a directory where jobs are kept so that another process can go on with an interrupted one, and where
    receipts are stored; without it they live as long as the session.
    territory: where the results are used, one of those the grant names; may be left out where it names one.
    parties: who asks, receives and pays, where that is not all this identity.
    turn_seconds: how long the node may take for one turn, in which it computes; after that, ``JobInterrupted``.
    """
    channel = FlightChannel(url, identity, peer=delegation.read(grant).aud, turn_seconds=turn_seconds)
    return Session(
        channel,
        identity=identity,
        grant=grant,
        state=state,
        executor=executor,
        territory=territory,
        parties=parties,
    )


class Session(Client):
    """Computations with one node under one grant, a verb for each kind. Use as a context manager, in one thread."""

    def __init__(
        self,
        channel: Channel,
        *,
        identity: Identity,
        grant: str,
        state: Path | str | None = None,
        executor: Executor | None = None,
        territory: str | None = None,
        parties: Parties = ONE_PARTY,
    ) -> None:
        super().__init__(
            channel,
            identity=identity,
            grant=grant,
            state=state,
            executor=executor,
            territory=territory,
            parties=parties,
        )
        self._tables: dict[str, npt.NDArray[np.uint8]] = {}  # values of evaluated tables by id
        self.kept = Kept(self._directory)
        self.follows = delta.Follows(self._directory)

    def quote(self, operation: str, dataset: str, *, rows: int, **params: Any) -> Quote:
        """What a computation would cost and what is left of the grant's limits. Spends nothing."""
        params = self._asked(dataset, params)
        if not 0 <= rows <= MAX_INTEGER:
            raise ParameterError(f"rows must be a count, not {rows}")
        request = QuoteRequest(
            grant=self._token, operation=operation, dataset=dataset, params=params, rows=rows
        )
        return Quote.parse(self._channel.action("quote", request.encode()))

    def _asked(self, dataset: str, params: dict[str, Any]) -> dict[str, Any]:
        """Parameters with the dataset's first key choice, where none is named."""
        entry = self._entry(dataset)
        if "identifiers" in params:  # which say it themselves
            return params
        if "columns" not in params and entry.keys:
            params["columns"] = entry.keys[0].columns
        if entry.keys:
            choice = intersection.key_choice(entry, params["columns"])
            params.setdefault("keys", intersection.key_spec(choice).digest)
        return params

    def explain(
        self,
        operation: str,
        dataset: str,
        *,
        rows: int,
        purpose: str | None = None,
        scenario: str | None = None,
        **params: Any,
    ) -> Explained:
        """Whether a computation would be allowed: a verdict for every rule, the price, what is left. Spends nothing.

        From documents and the meter alone, never from data; also where the grant is suspended or has ended. ``rows``
        and params as for ``quote``; the rest as for ``intersect``. Raises ``ParameterError`` for what cannot be asked.
        """
        request = self._request(operation, dataset, params, rows, purpose=purpose, scenario=scenario)
        stands: Refused | None = None
        try:
            request = request.model_copy(update={"params": self._asked(dataset, params)})
        except Refused as error:  # of the catalogue nothing is told then, of the verdicts all
            stands = error
        try:
            return authority.ask_explanation(self._channel, self._token, request)
        except ParameterError:
            if stands is not None:  # the parameters lack what the catalogue would have said
                raise stands from None
            raise

    def order(self, order: str, grant: str | None = None) -> None:
        """Bring the node a signed order about a grant (``broker.order.new_order``), by default about ours.

        grant: the token or chain that it is about. Raises ``GrantError``, ``Conflict``.
        """
        authority.give_order(self._channel, order, grant or self._token)

    def intersect(
        self,
        dataset: str,
        table: Any,
        *,
        on: On,
        output: Literal["rows", "count"] = "rows",
        reveal: Literal["consumer", "provider", "both"] = "consumer",
        protocol: planner.Protocol = "auto",
        runs: int = 1,
        labels: str | Sequence[str] = (),
        pad_to: PadTo = None,
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> MeteredIntersection:
        """Intersect a table of ours with a dataset of the node's.

        on: key columns: a name both sides use, several, or a mapping of our columns to theirs.
        output, reveal: as in ``psi.intersect``; ``consumer`` is this side.
        protocol: an operation's id, or ``auto``: what ``psi.plan`` says of those that the grant and the node know.
        runs: into how many buckets to cut the job, each a run of its own; for rows that only we learn.
        labels: columns of theirs to learn of keys that match, of those the catalogue offers and the grant allows;
            ``table()`` has them beside our rows (``psi.vole.v1``).
        pad_to: a number of keys, or ``power-of-two``: to what ours are filled up, so that the node does not learn how
            many we have; all are paid for. To go on with a job, pass the same.
        purpose, scenario: one of those the grant names; may be left out where it names one.
        job: the id of an interrupted job (``JobInterrupted.job``) to go on with: it is never charged twice.

        Raises ``Refused`` (the grant, the policy or the meter says no: nothing is spent), ``JobInterrupted`` (the
        peer cannot be reached: try again with ``job=``), ``JobForfeited``, ``TableError``, ``TransportError``.
        """
        return intersection.intersect(
            self,
            dataset,
            table,
            on=on,
            output=output,
            reveal=reveal,
            protocol=protocol,
            runs=runs,
            labelled=[labels] if isinstance(labels, str) else list(labels),
            pad_to=pad_to,
            purpose=purpose,
            scenario=scenario,
            job=job,
        )

    def intersect_sum(
        self,
        dataset: str,
        table: Any,
        *,
        on: On,
        values: Sequence[str] = (),
        by: str | None = None,
        min_group: int | None = None,
        noise: Noise | None = None,
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> MeteredSum:
        """How many keys of ours a dataset of the node's holds, and sums of its columns over them, but not which.

        values, by: columns that the dataset's holder offers for this (``catalog``), with their bounds and groups.
        min_group: the least number of keys that anything is told of; by default the least that is offered and granted.
        noise: exact noise on each sum, charged to the grant and the dataset. The rest is as for ``intersect``.

        Raises ``Refused`` also where too few keys match: the job is charged, its receipt kept, and nothing was opened.
        """
        asked = SumAsked(values, by, min_group, noise)
        return summing.intersect_sum(
            self, dataset, table, asked, on=on, purpose=purpose, scenario=scenario, job=job
        )

    def quote_sum(
        self,
        dataset: str,
        *,
        rows: int,
        on: On,
        values: Sequence[str] = (),
        by: str | None = None,
        min_group: int | None = None,
        noise: Noise | None = None,
    ) -> Quote:
        """What ``intersect_sum`` with so many keys of ours would cost, and what is left. Spends nothing."""
        return summing.quote(self, dataset, SumAsked(values, by, min_group, noise), rows=rows, on=on)

    def intersect_file(
        self,
        dataset: str,
        file: Path | str,
        *,
        on: On,
        out: Path | str,
        columns: Sequence[str] | None = None,
        protocol: planner.Protocol = "auto",
        runs: int | None = None,
        pad_to: PadTo = None,
        purpose: str | None = None,
        scenario: str | None = None,
        resume: bool = False,
        at_a_time: int | None = None,
        progress: Callback | None = None,
        stop: threading.Event | None = None,
    ) -> MeteredFileIntersection:
        """Write the rows of a file of ours whose key a dataset of the node's holds, in bounded memory.

        file: Parquet, CSV or Arrow, of any size; out: ends in .parquet, .csv or .arrow; columns: those to write, all by
        default. runs: into how many buckets to cut the job; by default, what keeps them near a million keys.
        at_a_time: runs under way, each about 200 MB; 2 by default. progress: told of the phases ``digest``, ``sort``,
        ``match`` and ``write``. stop: when set, what is under way is finished and ``JobInterrupted`` raised.
        resume: go on with the job that is kept for this file, if there is one, at whatever point it was stopped or
        killed; without it, an unfinished job is an error.

        The session needs ``state=``, where keys lie meanwhile: 40 bytes a row. The rest is as for
        ``intersect``; ``StoreError`` where the disk is full: free space and resume.
        """
        asked = bulk.FileAsked(
            session=self,
            dataset=dataset,
            on=on,
            protocol=protocol,
            runs=runs,
            pad_to=pad_to,
            purpose=purpose,
            scenario=scenario,
            resume=resume,
            at_a_time=at_a_time,
            progress=progress,
            stop=stop,
        )
        return bulk.intersect_file(asked, Path(file), Path(out), columns)

    def cancel_file(self, dataset: str, file: Path | str, *, on: On) -> str | None:
        """Give up the job kept for a file, and forget its keys; returns its id, None where there was none.

        What was charged stays charged.
        """
        return bulk.cancel_file(self, dataset, Path(file), on=on)

    def cascade(
        self,
        dataset: str,
        table: Any,
        *,
        on: InOrder,
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> MeteredCascade:
        """Match rows of ours with a dataset of the node's by several identifiers, in order of preference.

        on: ``psi.InOrder("id", ["name", "birth"])``: rows that the first one does not match go on to the next; each is
        one of the dataset's key choices. One job (``psi.cascade.v1``), charged once. Errors as for ``intersect``.
        """
        return cascade.match(self, dataset, table, on=on, purpose=purpose, scenario=scenario, job=job)

    def intersect_changes(
        self,
        dataset: str,
        table: Any,
        *,
        on: On,
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> MeteredIntersection:
        """Intersect a table of ours with a dataset of the node's again, over what changed since the last time.

        The same rows as ``intersect`` would find in both tables as they are now; charged are our keys that are new, and
        what came into their table and left it (``psi.delta.v1``). What a run leaves for the next one is kept in
        ``state``, else in this session. Arguments and errors as for ``intersect``; ``ParameterError`` where the
        dataset is not followed, ``VerificationError`` where what was kept is not the set that was committed to.
        """
        return delta.intersect_changes(
            self, dataset, table, on=on, purpose=purpose, scenario=scenario, job=job
        )

    def release(
        self,
        dataset: str,
        aggregates: Sequence[dp.Aggregate],
        *,
        by: By = (),
        budget: dp.Budget,
        least_units: int = 1,
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> MeteredRelease:
        """Aggregates of a dataset of the node's with differential privacy, charged to the grant and the dataset.

        The privacy unit is the holder's (``catalog``). The rest is as in ``dp.release``, and as in ``intersect``.
        The budget is spent when the node starts to work, whether or not an answer comes; a retry of the job gets the
        same answer and costs nothing.
        """
        return releasing.release(
            self,
            dataset,
            aggregates,
            by=by,
            budget=budget,
            least_units=least_units,
            purpose=purpose,
            scenario=scenario,
            job=job,
        )

    def quote_release(
        self,
        dataset: str,
        aggregates: Sequence[dp.Aggregate],
        *,
        by: By = (),
        budget: dp.Budget,
        least_units: int = 1,
        group_rows: int = 1000,
    ) -> MeteredReleaseQuote:
        """What a release would cost, how accurate it would be, and how many equal ones are left. Spends nothing."""
        return releasing.quote(
            self, dataset, aggregates, by=by, budget=budget, least_units=least_units, group_rows=group_rows
        )

    def release_plan(
        self,
        dataset: str,
        plan: dp.FixedPlan,
        *,
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> planned.MeteredPlan:
        """The answers to a fixed plan's questions (``dp.fixed_plan``), charged together for ``plan.cost``.

        For datasets whose budget is kept in epsilon and delta. Otherwise as ``release``.
        """
        return planned.ask(self, dataset, plan, purpose=purpose, scenario=scenario, job=job)

    def unit_of(self, dataset: str) -> tuple[dp.PrivacyUnit, dict[str, pa.DataType]]:
        """A dataset's privacy unit, and the types of its columns as releases see them."""
        return releasing.unit_of(self, dataset)

    def lookup(
        self,
        dataset: str,
        table: Any,
        *,
        on: On,
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> MeteredIntersection:
        """Look keys of ours up in a dataset of the node's, without its whole table each time (``psi.lookup.v1``).

        The first call receives the dataset's evaluated table, which is kept (in ``state`` for other processes too);
        after that a call costs 64 bytes a key. Arguments, result and errors as for ``intersect``; ``ParameterError``
        where the node offers no lookups.
        """
        return intersection.look_up(self, dataset, table, on=on, purpose=purpose, scenario=scenario, job=job)

    def verify(
        self,
        dataset: str,
        predicate: str | None = None,
        *,
        keys: Sequence[Any] | None = None,
        match: Sequence[str] | None = None,
        rows: Any = None,
        on: Mapping[str, str] | None = None,
        mode: Mode = "auto",
        check: Check | None = None,
        consent: Sequence[str] = (),
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> MeteredVerification:
        """Check claims about records of the node's: match, mismatch or no record for each, every answer proven.

        predicate: one that the dataset publishes (``seats >= 100``); or match: the columns to compare. keys: of the
        records, a list (tuples for keys of several columns); or rows: a table of ours with the key's columns and
        those to compare. on: our columns -> theirs, for those that are called otherwise. mode: ``private`` (the
        holder learns nothing of the keys), ``bucket`` (each is hidden among some records), or ``auto``: private where
        there is a check; ``batch``: private for many, and their number is padded; ``download``: receive the masked
        table once, where the grant has it. check: from an auditor, for this table; private mode and batches take one.
        consent: tokens of the subjects, one for each different record asked about, where the dataset takes them.

        Raises as ``intersect`` does, and ``VerificationError`` for an answer that was not what the holder's
        descriptor promises: the holder is not told, and the table is not asked again.
        """
        return verify(
            self,
            dataset,
            predicate,
            keys,
            match=match,
            rows=rows,
            on=on,
            mode=mode,
            check=check,
            consent=consent,
            purpose=purpose,
            scenario=scenario,
            job=job,
        )

    def opening(self, job: str) -> Opening:
        """What opens the record's commitment to the questions of a verification of ours: for a regulator who demands
        it."""
        return self.kept.opening(job)

    def prepare_verification(
        self,
        dataset: str,
        predicate: str | None = None,
        *,
        match: Sequence[str] | None = None,
        count: int = 1,
    ) -> int:
        """Do the part of private questions that does not depend on the keys, for as many of them; returns how many
        are ready.

        Each serves one question of this session and is gone with it: a job that used one cannot go on in another
        process.
        """
        return prepare(self, dataset, predicate, match, count)

    def statistics(
        self,
        dataset: str,
        sums: str | Sequence[str] = (),
        *,
        by: str | Sequence[str] = (),
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> MeteredStatistics:
        """Count rows, and add up columns, by none to two columns of the node's; sensitive cells are suppressed.

        sums: columns to add up, each with the number of its values and so its mean. Every cell says by which rule it
        is suppressed, if it is. Raises as ``intersect`` does; ``Refused`` (``overlap``) where this table and those
        told before could be subtracted; ``VerificationError`` for an answer that contradicts itself.
        """
        return statistics.ask(self, dataset, sums, by, purpose=purpose, scenario=scenario, job=job)

    def _held(self, choice: KeyChoice) -> npt.NDArray[np.uint8] | None:
        """The values of an evaluated table, if this session or an earlier one received them."""
        assert choice.table is not None
        if choice.table not in self._tables and self._directory is not None:
            path = self._directory / f"{choice.table}.table"
            if path.exists():
                self._tables[choice.table] = load_values(path, choice.distinct, choice.table)
        return self._tables.get(choice.table)

    def _hold(self, table_id: str, values: npt.NDArray[np.uint8]) -> None:
        self._tables[table_id] = values
        if self._directory is not None:
            store_values(self._directory / f"{table_id}.table", values)
