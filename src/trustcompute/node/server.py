"""A node: a holder's datasets behind its broker. Answers sessions in this process or over the network.

Every action names a grant or a job; the peer is the name in its certificate. What a peer may ask: turns of a job,
the first of which brings the signed request and so begins it; ``catalog``, ``quote``, ``explain``, ``open`` (to know
whether a job may begin before its first turn is made), ``receipt``, ``countersign``, ``cancel``.
``order`` and ``publish`` bring signed documents, whoever brings them (``authority``).
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from pydantic import ValidationError

from trustcompute.broker.broker import Broker
from trustcompute.broker.grant import VerifiedGrant
from trustcompute.broker.job import Fault, JobRecord, JobState
from trustcompute.broker.request import VerifiedRequest
from trustcompute.errors import (
    Conflict,
    GrantError,
    JobForfeited,
    JobInterrupted,
    ParameterError,
    Refused,
    RemoteProtocolError,
    TrustcomputeError,
)
from trustcompute.node import authority, documents, inspection
from trustcompute.node.aligned import Matches, rows_of
from trustcompute.node.answers import unpack
from trustcompute.node.computation import COMPUTATIONS, UNMATCHED, Computation
from trustcompute.node.contingency import Contingency, Notify, Suspend
from trustcompute.node.contribution import contributor
from trustcompute.node.dataset import Dataset, HeldDataset
from trustcompute.node.differencing import Sketches
from trustcompute.node.job import ProviderJob
from trustcompute.node.release import check_unit
from trustcompute.node.session import Session
from trustcompute.node.statistics import tabulator
from trustcompute.primitives import canonical
from trustcompute.primitives.identity import Identity
from trustcompute.primitives.member import of_identity
from trustcompute.protocol.message import Frame
from trustcompute.protocol.operation import Params, Sizes
from trustcompute.protocol.run import Incoming, take_again
from trustcompute.protocol.transcript import Binding
from trustcompute.psi.alignment import Duplicates
from trustcompute.psi.intersection import MatchedRows
from trustcompute.tables.keys import I64
from trustcompute.transport import FlightServer, LocalChannel

MAX_RUNNING: Final = 256  # jobs at a time: each holds its party's memory
MAX_REPORTED: Final = 65_536
SWEEP_SECONDS: Final = 15.0

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProviderResult:
    """What a computation told the provider: the job, the consumer's name, and its output."""

    job: str
    consumer: str
    dataset: str
    output: Any


class Node:
    """Answers computations on ``datasets`` under grants that ``broker`` accepts.

    identity:  whose certificate and name the node has; the broker signs with the same.
    executor:  runs pure functions over chunks of keys; none: everything in the calling thread.
    on_result: receives what a computation reveals to the provider, before the peer is charged for it.
    regulators: names that may read the log, the rules and statements (``inspection``), and nothing else.
    notify, suspend: told of orders and incidents, asked whether an incident suspends the grant (``contingency``).

    ``serve`` offers it on the network; ``session`` opens a session in this process. Close it at the end.
    """

    def __init__(
        self,
        identity: Identity,
        broker: Broker,
        datasets: Iterable[Dataset],
        *,
        executor: Executor | None = None,
        on_result: Callable[[ProviderResult], None] | None = None,
        computations: Sequence[Computation] = COMPUTATIONS,
        notify: Notify | None = None,
        suspend: Suspend | None = None,
        regulators: Iterable[str] = (),
    ) -> None:
        self.identity, self.broker = identity, broker
        self.contingency = Contingency(broker, notify, suspend)
        self.regulators = frozenset(regulators)
        self._executor, self._on_result = executor, on_result
        self._sketches = Sketches(broker.outbox.directory.parent)
        self._computations = {one.operation.id: one for one in computations}
        self._datasets: dict[str, HeldDataset] = {}
        self._matches = Matches(broker)
        for dataset in datasets:
            self._hold(HeldDataset(dataset, executor, signer=identity.key))
        self._jobs: dict[str, ProviderJob] = {}
        self._reported: OrderedDict[str, None] = OrderedDict()  # jobs with an incident in the log
        self._lock = threading.Lock()
        self._actions: dict[str, Callable[[str, bytes], bytes]] = {
            "catalog": self._catalog,
            "quote": self._quote,
            "open": self._open,
            "receipt": self._receipt,
            "countersign": self._countersign,
            "cancel": self._cancel,
            "explain": partial(authority.explain, self),
            "order": partial(authority.order, self),
            "publish": partial(authority.publish, self),
            "inspect.log": partial(inspection.page, self),
            "inspect.rules": partial(inspection.rules_in_force, self),
            "inspect.statement": partial(inspection.statement, self),
        }
        self._closing = threading.Event()
        self._sweeper = threading.Thread(
            target=self._sweep_regularly, name="trustcompute-sweeper", daemon=True
        )
        self._sweeper.start()

    def serve(self, host: str = "127.0.0.1", port: int = 0) -> FlightServer:
        """Listen with mutual TLS. Close the server before the node."""
        return FlightServer(self, self.identity, host=host, port=port)

    def session(self, grant: str, identity: Identity) -> Session:
        """A session in this process, metered like any other."""
        channel = LocalChannel(self, caller=identity.name, peer=self.identity.name)
        return Session(channel, identity=identity, grant=grant, executor=self._executor)

    def matched_rows(self, dataset: str, job: str, asker: str, *, duplicates: Duplicates = "first") -> I64:
        """Positions of the rows of a dataset of ours that matched in a job of this asker's with ``reveal="both"``, in
        the order the asker has too (``Intersection.aligned``). Kept for seven days. Raises ``Refused``."""
        if dataset not in self._datasets:
            raise ParameterError(f"this node holds no dataset {dataset!r}")
        return rows_of(self._datasets[dataset].asked_by(asker), job, duplicates=duplicates)

    def close(self) -> None:
        """Stop sweeping. Jobs that run are taken up by ``Broker.recover`` at the next start."""
        self._closing.set()
        self._sweeper.join()
        self.contingency.close()

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def action(self, peer: str, name: str, body: bytes) -> bytes:
        """One small request of a peer (``transport.Handler``)."""
        handler = self._actions.get(name)
        if handler is None:
            raise RemoteProtocolError(
                f"a node knows no action of that name; it knows {', '.join(self._actions)}"
            )
        return handler(peer, body)

    def exchange(self, peer: str, descriptor: bytes, incoming: Iterator[Incoming]) -> Sequence[Frame]:
        """One turn of a job, which the first one begins (``transport.Handler``)."""
        turn = documents.TurnDescriptor.parse(descriptor)
        if turn.opening is not None:
            self._begin(peer, turn.job, turn.opening)
        record = self._record(turn.job, peer)
        with self._lock:
            job = self._jobs.get(turn.job)
        try:
            if job is None:
                return self._again(record, turn, incoming)
            if job.has_released(turn.run):
                return self._again(self._record(turn.job, peer), turn, incoming)
            if turn.run >= job.runs:
                raise RemoteProtocolError(f"this job has runs 0 to {job.runs - 1}, not a run {turn.run}")
            return job.answer(turn.run, turn.turn, incoming)
        except RemoteProtocolError as error:
            self._report(peer, turn.job, error)
            raise
        except (Refused, Conflict, JobForfeited):
            self._drop(turn.job)
            raise
        finally:
            if job is not None and job.failed:
                self._drop(turn.job)

    def sweep(self) -> None:
        """Void or forfeit jobs whose lease has run out; forget those, and jobs that ended before the last sweep."""
        expired = {job.id for job in self.broker.sweep()}
        self._matches.sweep()
        with self._lock:
            for job in list(self._jobs.values()):
                if job.id in expired or job.stale or job.idle or job.failed or self._ended_elsewhere(job):
                    del self._jobs[job.id]
                job.stale = job.ended

    def _catalog(self, peer: str, body: bytes) -> bytes:
        grant = self._grant(peer, documents.CatalogRequest.parse(body).grant)
        held = self._datasets.get(grant.claims.asset.id)
        operations = sorted(set(self._computations) & set(grant.claims.operations))
        matched = any(operation not in UNMATCHED for operation in operations)
        entries = [] if held is None else [held.describe(matched=matched)]
        return documents.Catalog(
            certificate=self.identity.certificate.decode(),
            operations=operations,
            datasets=[documents.CatalogEntry.model_validate(entry) for entry in entries],
        ).encode()

    def _quote(self, peer: str, body: bytes) -> bytes:
        asked = documents.QuoteRequest.parse(body)
        grant = self._grant(peer, asked.grant)
        computation, held = self.computation(asked.operation), self._dataset(asked.dataset, grant)
        params = computation.operation.check(asked.params, Sizes(asked.rows, 0))
        sizes = Sizes(asked.rows, computation.rows(held, params))
        return canonical.dumps(self.broker.quote(grant, computation.operation, params, sizes).to_document())

    def _open(self, peer: str, body: bytes) -> bytes:
        first = documents.TurnDescriptor.parse(body)
        if first.opening is None:
            raise RemoteProtocolError("a job is opened by the descriptor of its first turn")
        self._begin(peer, first.job, first.opening)
        return b"{}"

    def _begin(self, peer: str, job: str, opening: documents.Opening) -> None:
        """Decide and reserve; only then look at the dataset's keys. Again, it changes nothing."""
        request = self.broker.verify_request(opening.request, peer=peer, grant=opening.grant)
        claims = request.claims
        if claims.jti != job:
            raise RemoteProtocolError("the turn is of another job than the request that it brings")
        computation = self.computation(claims.op)
        params = computation.operation.check(claims.params, Sizes(claims.sizes.consumer, 0))
        if params != claims.params:
            raise ParameterError("the request's parameters are not in canonical form")
        if computation.check_asker is not None:
            computation.check_asker(params, claims.san, request.key)
        record = self.broker.reserve(request, computation.operation)
        if not (record.open or self._goes_on(record, computation.runs(params))):
            return
        try:
            held = self._dataset(claims.dataset, request.grant)
            sizes = Sizes(claims.sizes.consumer, computation.rows(held, params))
            if sizes.provider != opening.rows:
                raise ParameterError("the dataset has another size than its catalogue said: connect again")
            self._sketches.admit(request, params)
            self._admit(request, computation, held, sizes)
        except TrustcomputeError as error:
            self.broker.abandon(record.id, f"not begun: {error.code}", Fault.PROVIDER)
            raise

    def _admit(
        self, request: VerifiedRequest, computation: Computation, held: HeldDataset, sizes: Sizes
    ) -> None:
        """Set up the provider's party. It has not touched anything when this returns."""
        claims, operation = request.claims, computation.operation
        with self._lock:
            record = self.broker.job(claims.jti)  # once more, under the lock: it may have been cancelled
            runs = computation.runs(claims.params)
            if claims.jti in self._jobs or record is None or not (record.open or self._goes_on(record, runs)):
                return
            source = "" if computation.cut is None else computation.cut.source(held, claims.params)
            if record.releases:
                self._check_source(record, source)
            if sum(not job.ended for job in self._jobs.values()) >= MAX_RUNNING:
                raise Refused(
                    f"the node runs {MAX_RUNNING} jobs, as many as it can",
                    rule="capacity",
                    field="job",
                    owner=self.identity.name,
                    fix="start a new job later",
                )
            if computation.admit is not None:
                computation.admit(held, claims.params, sizes, claims.jti, self.broker.now())
            self._jobs[claims.jti] = ProviderJob(
                self.broker,
                job=claims.jti,
                peer=claims.san,
                party=partial(computation.party, held, claims.params, sizes, self._executor),
                binding=Binding(
                    claims.grant, operation.id, claims.params, operation.consumer, operation.provider
                ),
                usage=operation.bound(claims.params, sizes),
                deliver=partial(self._deliver, claims.jti, held, claims.params),
                runs=runs,
                arms=not computation.charged_first,
                released=[release.run for release in record.releases],
                source=source,
            )

    @staticmethod
    def _goes_on(record: JobRecord, runs: int) -> bool:
        """A job that is charged, and has runs left: an earlier process of this node, or this one, let go of it."""
        posted = record.state is JobState.POSTED and record.countersigned is None
        return posted and len(record.releases) < runs

    def _check_source(self, record: JobRecord, source: str) -> None:
        """The runs that are left must meet the data that the first ones met."""
        first = record.releases[0]
        if unpack(self.broker.answer(record.id, first.run, first.turn)).source != source:
            raise Conflict("the dataset is not the one this job began with: start a new job")

    def _deliver(self, job: str, held: HeldDataset, params: Params, output: Any) -> None:
        if isinstance(output, MatchedRows) and output.order is not None:
            self._matches.keep(job, held, params, output.order)
        if self._on_result is not None and output is not None:
            self._on_result(ProviderResult(job, held.asker, held.dataset.id, output))

    def _receipt(self, peer: str, body: bytes) -> bytes:
        job = documents.JobRequest.parse(body).job
        self._record(job, peer)
        return self.broker.receipt(job).to_json()

    def _countersign(self, peer: str, body: bytes) -> bytes:
        return self.broker.countersign(documents.CountersignRequest.parse(body).token).to_json()

    def _cancel(self, peer: str, body: bytes) -> bytes:
        record = self._record(documents.JobRequest.parse(body).job, peer)
        self._drop(record.id)
        self.broker.abandon(record.id, "cancelled by the consumer", Fault.PEER)
        return b"{}"

    def _again(
        self, record: JobRecord, asked: documents.TurnDescriptor, incoming: Iterator[Incoming]
    ) -> Sequence[Frame]:
        """A turn of a run that is not under way here: a posted answer is served again, to the byte."""
        if record.state is JobState.POSTED:
            released = next((release for release in record.releases if release.run == asked.run), None)
            if released is None:
                raise JobInterrupted(f"run {asked.run} is not under way here: open the job again", record.id)
            if asked.turn > released.turn:
                raise JobForfeited(
                    "the node no longer has what this job would go on from: it is charged, start a new one",
                    record.id,
                )
            answer = unpack(self.broker.answer(record.id, released.run, released.turn))
            if asked.turn != answer.turn:
                raise RemoteProtocolError(
                    f"turn {asked.turn} came out of order: only turn {answer.turn} can be served again"
                )
            take_again(answer.taken, incoming)
            return answer.frames
        if record.state in (JobState.ARMED, JobState.FORFEITED):
            raise JobForfeited(
                "the job stopped after the node had touched its data: its reservation is spent, start a new job",
                record.id,
            )
        raise Conflict(f"the job is {record.state}: start a new one")

    def renew(self, dataset: Dataset) -> None:
        """Offer another version of a dataset, without an outage: the one before answers until this one is ready, and
        jobs that run go on with it; of its verification tables some answer longer (``Published.earlier``).

        Raises as the start of a node does; then nothing has changed.
        """
        if dataset.id not in self._datasets:
            raise ParameterError(f"the node offers no dataset {dataset.id!r} to renew")
        held = HeldDataset(dataset, self._executor, signer=self.identity.key)
        if dataset.verified is not None:
            before = self._datasets[dataset.id].verification
            held.verification = held.verification.after(before, dataset.verified.earlier)
        self._hold(held, again=True)

    def _hold(self, held: HeldDataset, *, again: bool = False) -> None:
        """Digest a dataset and describe it once, so that what cannot be offered is found at the start."""
        name = held.dataset.id
        if name in self._datasets and not again:
            raise ParameterError(f"there are two datasets {name!r}: give each an id of its own")
        held.tabulator = tabulator(held, self.identity, self.broker.outbox.directory.parent)
        try:
            documents.CatalogEntry.model_validate(held.describe())
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ParameterError(f"dataset {name!r} cannot be offered: {where}: {first['msg']}") from None
        check_unit(held.dataset)
        held.member = of_identity(self.identity)
        if held.dataset.aggregates or held.dataset.vector or held.dataset.opens:
            directory = self.broker.outbox.directory.parent
            held.contributor = contributor(self.identity, directory, name, held.dataset.version)
        held.matches = self._matches
        self.broker.register(held.asset())
        self._datasets[name] = held

    def _ended_elsewhere(self, job: ProviderJob) -> bool:
        """The book has ended a job that never ran to its end here: refused at arming, cancelled, out of lease."""
        record = self.broker.job(job.id)
        return not job.ended and (record is None or (not record.open and record.state is not JobState.POSTED))

    def _report(self, peer: str, job: str, error: TrustcomputeError) -> None:
        """One incident a job enters the log; what comes after is counted, so that a peer cannot make the log grow."""
        with self._lock:
            known = job in self._reported
            self._reported[job] = None
            while len(self._reported) > MAX_REPORTED:
                self._reported.popitem(last=False)
        if known:
            self.broker.count_failure(peer)
        else:
            self.broker.incident("protocol", peer, job=job, detail=error.code)
            self.contingency.incident(job, peer, error.code)

    def _grant(self, peer: str, token: str) -> VerifiedGrant:
        """The grant of a peer that need not prove its key: enough to be shown what it could ask for."""
        try:
            grant = self.broker.verify(token)
            if grant.claims.sub != peer:
                raise GrantError(f"the grant is for {grant.claims.sub}, not for {peer}", "sub")
        except GrantError:
            self.broker.count_failure(peer)
            raise
        self.broker.admit(grant)
        return grant

    def _record(self, job: str, peer: str) -> JobRecord:
        record = self.broker.job(job)
        if record is None or record.peer != peer:
            raise Conflict("this node has no such job of yours: open it first")
        return record

    def computation(self, operation: str) -> Computation:
        """What answers an operation. Raises ``ParameterError`` naming those that are known."""
        if operation not in self._computations:
            raise ParameterError(
                f"this node does not know that operation; it knows {', '.join(self._computations)}"
            )
        return self._computations[operation]

    def _dataset(self, dataset: str, grant: VerifiedGrant) -> HeldDataset:
        """A dataset the grant is for; of others, not even whether they exist is told."""
        if dataset != grant.claims.asset.id or dataset not in self._datasets:
            raise ParameterError("this node has no such dataset for this grant: ask for its catalogue")
        return self._datasets[dataset].asked_by(grant.claims.sub)

    def _drop(self, job: str) -> None:
        with self._lock:
            self._jobs.pop(job, None)

    def _sweep_regularly(self) -> None:
        while not self._closing.wait(SWEEP_SECONDS):
            try:
                self.sweep()
            except Exception:
                log.exception("sweeping expired jobs failed; it is tried again")
