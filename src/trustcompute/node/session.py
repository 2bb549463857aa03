"""The consumer's side: ask a node under a grant, run the other party, acknowledge, hold a receipt."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Generic, Literal, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trustcompute import dp
from trustcompute.broker import delegation
from trustcompute.broker import request as requests
from trustcompute.broker.grant import hash_of
from trustcompute.broker.log import decode, log_key
from trustcompute.broker.meter import usage_document
from trustcompute.broker.receipt import Receipt
from trustcompute.broker.request import ONE_PARTY, Parties, Request
from trustcompute.dp import operation as releases
from trustcompute.dp import parties as dp_parties
from trustcompute.dp.answer import ReleaseQuote, accuracy, proof
from trustcompute.dp.groups import By, listed
from trustcompute.dp.plan import Plan, with_values
from trustcompute.errors import (
    Conflict,
    GrantError,
    JobForfeited,
    JobInterrupted,
    ParameterError,
    Refused,
    RemoteProtocolError,
    TransportError,
    TrustcomputeError,
    VerificationError,
)
from trustcompute.node import authority, bulk, intersection, planned
from trustcompute.node.authority import Explained
from trustcompute.node.bulk import MeteredFileIntersection
from trustcompute.node.documents import (
    Catalog,
    CatalogEntry,
    CatalogRequest,
    CountersignRequest,
    JobRequest,
    KeyChoice,
    Opened,
    OpenRequest,
    Quote,
    QuoteRequest,
)
from trustcompute.node.intersection import MeteredIntersection
from trustcompute.node.link import Link
from trustcompute.node.release import declared_types
from trustcompute.node.state import JobState, StateStore
from trustcompute.node.verifying import Kept, MeteredVerification, prepare, verify
from trustcompute.primitives.canonical import MAX_INTEGER
from trustcompute.primitives.checkpoint import NoteKey
from trustcompute.primitives.identity import Identity, peer_key, peer_name, verify_certificate
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import token_hash
from trustcompute.protocol.operation import Leakage, Operation, Params, Sizes, Usage
from trustcompute.protocol.party import Party
from trustcompute.protocol.run import Answer, Cost, Runner, drive, turn_digest
from trustcompute.protocol.transcript import Binding
from trustcompute.psi import planner
from trustcompute.psi.intersection import On
from trustcompute.psi.table import load_values, store_values
from trustcompute.tables.progress import Callback
from trustcompute.transport import Channel, FlightChannel
from trustcompute.transport.client import TURN_SECONDS
from trustcompute.verification import Check
from trustcompute.verification.planner import Mode

T = TypeVar("T")

log = logging.getLogger(__name__)

RETRY_SECONDS: Final = (0.2, 1.0, 5.0)  # before each further attempt at a turn that did not get through


@dataclass(frozen=True)
class MeteredRelease(dp.Release):
    """A release of another organisation's data. ``receipt`` proves what was charged; ``traffic``: on the wire."""

    job: str = ""
    traffic: Cost | None = None
    leakage: Leakage | None = None
    receipt: Receipt | None = field(repr=False, default=None)


@dataclass(frozen=True)
class MeteredReleaseQuote(ReleaseQuote):
    """price: of the node; equal_left: how many such releases what is left of the grant would pay for, if limited."""

    price: Quote
    equal_left: int | None


@dataclass(frozen=True)
class Computed(Generic[T]):
    """One metered computation: this side's output, and what it took, told and proved."""

    output: T
    cost: Cost
    leakage: Leakage
    job: str
    receipt: Receipt = field(repr=False)


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


class Session:
    """Computations with one node under one grant. Use as a context manager; not shared between threads."""

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
        self._channel, self._identity, self._token, self._executor = channel, identity, grant, executor
        self.grant = delegation.read(grant)
        if territory is None and self.grant.territory is not None:
            territory = _only("territory", None, self.grant.territory)
        self._territory, self._parties = territory, parties
        if channel.peer != self.grant.aud:
            raise GrantError(f"the grant is for the node {self.grant.aud}, not for {channel.peer}", "aud")
        self._states = StateStore(None if state is None else Path(state))
        self._directory = None if state is None else Path(state)
        self._tables: dict[str, npt.NDArray[np.uint8]] = {}  # values of evaluated tables by id
        self._catalog: Catalog | None = None
        self.kept = Kept(self._directory)
        self._log_key: NoteKey | None = None

    def catalog(self) -> Catalog:
        """What the node offers under this grant: datasets, their columns and key choices."""
        answer = Catalog.parse(self._channel.action("catalog", CatalogRequest(grant=self._token).encode()))
        certificate = verify_certificate(answer.certificate.encode(), self._identity.authority)
        if peer_name(certificate) != self._channel.peer:
            raise RemoteProtocolError("the node shows a certificate for another name than its own")
        self._log_key = log_key(self._channel.peer, peer_key(certificate))
        self._catalog = answer
        return answer

    @property
    def log_key(self) -> NoteKey:
        """What verifies the node's receipts and checkpoints, offline and for ever: keep ``str(log_key)``."""
        if self._log_key is None:
            self.catalog()
        assert self._log_key is not None
        return self._log_key

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
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> MeteredIntersection:
        """Intersect a table of ours with a dataset of the node's.

        on: key columns: a name both sides use, several, or a mapping of our columns to theirs.
        output, reveal: as in ``psi.intersect``; ``consumer`` is this side.
        protocol: an operation's id, or ``auto``: what ``psi.plan`` says of those that the grant and the node know.
        runs: into how many buckets to cut the job, each a run of its own; for rows that only we learn.
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
            purpose=purpose,
            scenario=scenario,
            job=job,
        )

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
        plan, params = self._release_plan(dataset, aggregates, by, budget, least_units)
        done = self.compute(
            releases.OPERATIONS[0],
            dataset,
            params,
            Sizes(0, 0),
            lambda params, rng: dp_parties.consumer(plan),
            input_digest=hashlib.sha256(b"").digest(),
            purpose=purpose,
            scenario=scenario,
            job=job,
        )
        plan = plan.settled(done.output.bounds)
        return MeteredRelease(
            plan, done.output, job=done.job, traffic=done.cost, leakage=done.leakage, receipt=done.receipt
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
        plan, params = self._release_plan(dataset, aggregates, by, budget, least_units)
        request = QuoteRequest(
            grant=self._token, operation=releases.OPERATIONS[0].id, dataset=dataset, params=params, rows=0
        )
        price = Quote.parse(self._channel.action("quote", request.encode()))
        used = {unit: int(amount) for unit, amount in price.usage.items()}
        left = [
            int(amount) // used[unit]
            for unit, spans in price.left.items()
            for span, amount in spans.items()
            if used.get(unit) and span != "per_call"
        ]
        return MeteredReleaseQuote(
            plan.cost, accuracy(plan, group_rows), proof(plan), price, min(left) if left else None
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
        entry = self._entry(dataset)
        if entry.unit is None:
            raise ParameterError(f"dataset {dataset!r} has no privacy unit: nothing is released from it")
        unit = dp.PrivacyUnit(
            entry.unit.column, entry.unit.groups, entry.unit.rows_per_group, dict(entry.unit.known)
        )
        return unit, declared_types({column.name: column.type for column in entry.columns})

    def _release_plan(
        self, dataset: str, aggregates: Sequence[dp.Aggregate], by: By, budget: dp.Budget, least_units: int
    ) -> tuple[Plan, dict[str, Any]]:
        """What both sides will do, and the parameters that say so."""
        unit, types = self.unit_of(dataset)
        groups = [with_values(group, unit) for group in listed(by)]
        params = releases.parameters(aggregates, groups, budget, least_units)
        return releases.plan_of(params, unit, types), params

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
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
    ) -> MeteredVerification:
        """Check claims about records of the node's: match, mismatch or no record for each, every answer proven.

        predicate: one that the dataset publishes (``seats >= 100``); or match: the columns to compare. keys: of the
        records, a list (tuples for keys of several columns); or rows: a table of ours with the key's columns and
        those to compare. on: our columns -> theirs, for those that are called otherwise. mode: ``private`` (the
        holder learns nothing of the keys), ``bucket`` (each is hidden among some records), or ``auto``: private where
        there is a check. check: from an auditor, for this table; private mode takes one.

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
            purpose=purpose,
            scenario=scenario,
            job=job,
        )

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

    def compute(
        self,
        operation: Operation,
        dataset: str,
        params: Params,
        sizes: Sizes,
        party: Callable[[Params, Rng], Party[T]],
        *,
        input_digest: bytes,
        purpose: str | None = None,
        scenario: str | None = None,
        job: str | None = None,
        began: Callable[[str], object] = lambda job: None,
    ) -> Computed[T]:
        """Run this side's party of an operation, metered: what every verb of a session does.

        sizes: ours, and the provider's as its catalogue says; party: from canonical parameters and randomness;
        input_digest: 32 bytes that change whenever our input does, so that no secret serves two inputs;
        began: told the job's id once the node has opened it.
        """
        state = self._begin(
            operation,
            dataset,
            params,
            sizes,
            input_digest=input_digest,
            purpose=purpose,
            scenario=scenario,
            job=job,
        )
        began(state.job)
        params = state.asked["params"]
        rng = Rng.derive(state.seed, info=token_hash(state.request).encode() + input_digest)
        runner, receipt = self._run(party(params, rng), operation, params, sizes, state)
        return Computed(runner.result, runner.cost, operation.leakage(params), state.job, receipt)

    def _begin(
        self,
        operation: Operation,
        dataset: str,
        params: Params,
        sizes: Sizes,
        *,
        input_digest: bytes,
        purpose: str | None,
        scenario: str | None,
        job: str | None,
        begun: Callable[[str], object] | None = None,
    ) -> JobState:
        """Sign a request and keep it, or find the one that was kept; open the job at the node.

        begun: told the id of a new job before the node is.
        """
        params = operation.check(params, sizes)
        asked = {"operation": operation.id, "dataset": dataset, "params": params}
        if job is None:
            request = self._request(
                operation.id, dataset, params, sizes.consumer, purpose=purpose, scenario=scenario
            )
            signed = request.sign(self._identity.key)
            state = JobState(request.jti, signed, os.urandom(32), input_digest.hex(), asked)
            self._states.save(state)
            if begun is not None:
                begun(state.job)
        else:
            state = self._states.load(job)
            if (state.input_digest, state.asked) != (input_digest.hex(), asked):
                raise ParameterError(f"job {job} was for another table, dataset or output: start a new job")
        self._open(state, params, sizes)
        return state

    def receipt(self, job: str) -> Receipt:
        """The receipt of a job of ours, verified against the node's log key."""
        return self._verified(self._channel.action("receipt", JobRequest(job=job).encode()), job)

    def cancel(self, job: str) -> None:
        """Give a job up: it costs nothing before the node has touched its data, its reservation afterwards."""
        self._channel.action("cancel", JobRequest(job=job).encode())

    @property
    def executor(self) -> Executor | None:
        """What chunks of work run on."""
        return self._executor

    @property
    def certificate(self) -> bytes:
        """The node's certificate (PEM), as its catalogue shows it."""
        return (self._catalog or self.catalog()).certificate.encode()

    @property
    def authority(self) -> bytes:
        """Who certifies the nodes this session talks to (PEM)."""
        return self._identity.authority

    def entry(self, dataset: str) -> CatalogEntry:
        """A dataset in the node's catalogue. Raises ``ParameterError`` naming those there are."""
        return self._entry(dataset)

    def unfinished(self) -> list[str]:
        """Jobs of ours with this node that are kept and not finished, the oldest first."""
        kept = self._states.unfinished()  # perhaps beside those with other nodes
        return [job for job in kept if self._audience(job) == self.grant.aud]

    def begun(self, job: str) -> dict[str, Any]:
        """What an interrupted job of ours asked for."""
        return self._states.load(job).asked

    def _audience(self, job: str) -> str:
        return requests.read(self._states.load(job).request).aud

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _entry(self, dataset: str) -> CatalogEntry:
        catalog = self._catalog or self.catalog()
        for entry in catalog.datasets:
            if entry.id == dataset:
                return entry
        known = ", ".join(repr(entry.id) for entry in catalog.datasets) or "none"
        raise ParameterError(f"the node offers no dataset {dataset!r} under this grant; it offers: {known}")

    def _request(
        self,
        operation: str,
        dataset: str,
        params: Params,
        rows: int,
        *,
        purpose: str | None,
        scenario: str | None,
    ) -> Request:
        """What to sign for a new job."""
        if scenario is None and self.grant.scenarios is not None:
            scenario = _only("scenario", None, self.grant.scenarios)
        return requests.new_request(
            grant=self._token,
            operation=operation,
            dataset=dataset,
            params=params,
            rows=rows,
            purpose=_only("purpose", purpose, self.grant.purposes),
            scenario=scenario,
            territory=self._territory,
            parties=self._parties,
            audience=self.grant.aud,
            san=self._identity.name,
            key=self._identity.key.public,
        )

    def _open(self, state: JobState, params: Params, sizes: Sizes) -> None:
        body = OpenRequest(grant=self._token, request=state.request).encode()
        opened = Opened.parse(self._retry(state.job, lambda: self._channel.action("open", body)))
        if (opened.job, opened.params) != (state.job, params):
            raise RemoteProtocolError("the node opened another job than the one that was asked for")
        if (opened.consumer_rows, opened.provider_rows) != (sizes.consumer, sizes.provider):
            raise RemoteProtocolError(
                "the node's dataset has another size than its catalogue says: connect again"
            )
        if opened.state == "forfeited":
            raise JobForfeited(
                f"job {state.job} was forfeited: its reservation is spent, start a new one", state.job
            )
        if opened.state not in ("reserved", "armed", "posted"):
            raise Conflict(f"job {state.job} is {opened.state}: start a new one")

    def _run(
        self, party: Party[T], operation: Operation, params: Params, sizes: Sizes, state: JobState
    ) -> tuple[Runner[T], Receipt]:
        binding = Binding(hash_of(self._token), operation.id, params, operation.consumer, operation.provider)
        runner = Runner(party, binding, leads=True, job=state.job)
        link = Link(self._channel, self._states, state.job)
        receipts: list[bytes] = []

        def acknowledge(answer: Answer) -> None:
            if not receipts:
                receipts.append(self._countersign(state, [answer.digest]))

        try:
            self._retry(
                state.job, lambda: drive(runner, link.exchange, taken=link.keep, released=acknowledge)
            )
        except TrustcomputeError:
            if not (runner.done and receipts):
                raise
            # Our result is complete and acknowledged; only our last turn, which tells the peer its part, is lost.
            log.warning("job %s: the last turn could not be delivered", state.job)
        answer = runner.answer or Answer(turn_digest([]), runner.transcript)
        self._retry(state.job, lambda: acknowledge(answer))  # where nothing was released to this side
        receipt = self._verified(receipts[0], state.job)
        check_charge(receipt, state, answer, operation.bound(params, sizes))
        self._states.finish(state.job, receipts[0], str(self.log_key))
        return runner, receipt

    def _countersign(self, state: JobState, answers: Sequence[str]) -> bytes:
        token = requests.countersign(
            job=state.job, request=state.request, answers=answers, key=self._identity.key
        )
        return self._channel.action("countersign", CountersignRequest(token=token).encode())

    def _verified(self, raw: bytes, job: str) -> Receipt:
        receipt = Receipt.from_json(raw)
        entry = receipt.verify(self.log_key)
        if entry.fields.get("job") != job or entry.fields.get("grant") != hash_of(self._token):
            raise RemoteProtocolError("the node returned the receipt of another job")
        return receipt

    def _retry(self, job: str, call: Callable[[], T]) -> T:
        """Try again where the channel broke; every call of a session is idempotent."""
        for seconds in RETRY_SECONDS:
            try:
                return call()
            except TransportError:
                time.sleep(seconds)
        try:
            return call()
        except TransportError as error:
            raise JobInterrupted(f"{error}; job {job} can go on later: pass job={job!r}", job) from error


def check_charge(receipt: Receipt, state: JobState, answer: Answer, bound: Usage) -> None:
    """A receipt must be for our request, answer and conversation, and charge what was declared."""
    fields = decode(receipt.index, receipt.entry).fields
    expected = {
        "request": token_hash(state.request),
        "frames": answer.digest,
        "transcript": answer.transcript,
        "usage": usage_document(bound),
    }
    wrong = [name for name, value in expected.items() if fields.get(name) != value]
    if wrong:
        raise VerificationError(
            f"the receipt of job {state.job} is not for what happened: {', '.join(wrong)} differ"
        )


def _only(name: str, given: str | None, allowed: Sequence[str]) -> str:
    if given is not None:
        return given
    if len(allowed) == 1:
        return allowed[0]
    raise ParameterError(f"the grant names several of {name}: pass {name}= one of {', '.join(allowed)}")
