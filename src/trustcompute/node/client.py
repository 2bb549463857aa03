"""One consumer's jobs at one node: sign a request, run the other party, acknowledge, hold a receipt.

The signed request travels with a run's first turn, so that a question of one turn is one call, and its acknowledgement.

``Session`` is a ``Client`` with a verb for each computation; the modules behind its verbs, and ``runs``, call this one.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, Generic, Self, TypeVar

from trustcompute.broker import delegation
from trustcompute.broker import request as requests
from trustcompute.broker.grant import hash_of
from trustcompute.broker.log import decode, log_key
from trustcompute.broker.meter import usage_document
from trustcompute.broker.receipt import Receipt
from trustcompute.broker.request import ONE_PARTY, Parties, Request
from trustcompute.errors import (
    GrantError,
    JobInterrupted,
    ParameterError,
    RemoteProtocolError,
    TransportError,
    TrustcomputeError,
    VerificationError,
)
from trustcompute.node.documents import (
    Catalog,
    CatalogEntry,
    CatalogRequest,
    CountersignRequest,
    JobRequest,
    Opening,
    TurnDescriptor,
)
from trustcompute.node.link import Link
from trustcompute.node.metered import Metered
from trustcompute.node.state import JobState, StateStore
from trustcompute.primitives.checkpoint import NoteKey
from trustcompute.primitives.identity import Identity, peer_key, peer_name, verify_certificate
from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import token_hash
from trustcompute.protocol.operation import Leakage, Operation, Params, Sizes, Usage
from trustcompute.protocol.party import Party
from trustcompute.protocol.run import Answer, Cost, Runner, drive, turn_digest
from trustcompute.protocol.transcript import Binding
from trustcompute.transport import Channel

log = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_SECONDS: Final = (0.2, 1.0, 5.0)  # before each further attempt at a turn that did not get through
NO_ROWS: Final = Sizes(0, 0)
AHEAD: Final = 1  # acknowledgements on their way while the next question is asked
MANY_ROWS: Final = (
    1024  # of ours: it takes longer to make the first turn of them than to ask whether it may be sent
)
NO_INPUT: Final = hashlib.sha256(b"").digest()  # of a consumer that brings no data


@dataclass(frozen=True)
class Computed(Metered, Generic[T]):
    """One metered computation: this side's output, and what it took, told and proved."""

    output: T
    cost: Cost
    leakage: Leakage


class Client:
    """What every verb of a session needs. Use as a context manager; not shared between threads.

    Answers are acknowledged on a thread of the client's own, each as soon as it has arrived and whatever is found in
    it. One that could not be, or whose receipt is wrong, is told by the result's ``receipt``, and by the next verb or
    the session's end.
    """

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
        self._catalog: Catalog | None = None
        self._log_key: NoteKey | None = None
        self._acknowledging = ThreadPoolExecutor(1, "trustcompute-acknowledge")
        self._coming: deque[Future[Receipt]] = deque()

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

    def entry(self, dataset: str) -> CatalogEntry:
        """A dataset in the node's catalogue. Raises ``ParameterError`` naming those there are."""
        return self._entry(dataset)

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
        begun: Callable[[str], object] = lambda job: None,
        ahead: bool = False,
        resumable: bool = True,
    ) -> Computed[T]:
        """Run this side's party of an operation, metered: what every verb of a session does.

        sizes: ours, and the provider's as its catalogue says; party: from canonical parameters and randomness;
        input_digest: 32 bytes that change whenever our input does, so that no secret serves two inputs;
        begun: told the job's id before the node is; ahead: have the node decide before the party is made, as it does
        where we bring many rows; resumable: whether another process could go on with it: the peer's turns are kept
        until the receipt is in.
        """
        self._settle(AHEAD)
        state = self._begin(
            operation,
            dataset,
            params,
            sizes,
            input_digest=input_digest,
            purpose=purpose,
            scenario=scenario,
            job=job,
            begun=begun,
            ahead=ahead or sizes.consumer >= MANY_ROWS,
        )
        params = state.asked["params"]
        rng = Rng.derive(state.seed, info=token_hash(state.request).encode() + input_digest)
        return self._run(party(params, rng), operation, sizes, state, resumable=resumable)

    def receipt(self, job: str) -> Receipt:
        """The receipt of a job of ours, verified against the node's log key."""
        return self._verified(self._channel.action("receipt", JobRequest(job=job).encode()), job)

    def cancel(self, job: str) -> None:
        """Give a job up: it costs nothing before the node has touched its data, its reservation afterwards."""
        self._channel.action("cancel", JobRequest(job=job).encode())

    def signed(self, job: str) -> str:
        """The signed request of a job of ours that is not finished."""
        return self._states.load(job).request

    def unfinished(self) -> list[str]:
        """Jobs of ours with this node that are kept and not finished, the oldest first."""
        kept = self._states.unfinished()  # perhaps beside those with other nodes
        return [job for job in kept if requests.read(self._states.load(job).request).aud == self.grant.aud]

    def begun(self, job: str) -> dict[str, Any]:
        """What an interrupted job of ours asked for."""
        return self._states.load(job).asked

    @property
    def identity(self) -> Identity:
        """Who we are."""
        return self._identity

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

    def close(self) -> None:
        """Wait until every answer is acknowledged, and let go of the connection. Raises what went wrong with one."""
        self._acknowledging.shutdown()
        self._channel.close()
        self._settle(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            self.close()
        except TrustcomputeError:
            if error is None:
                raise
            log.exception("an answer was not acknowledged")

    def _settle(self, most: int) -> None:
        """Wait until at most so many acknowledgements are on their way. Raises what went wrong with one, once."""
        while len(self._coming) > most or (self._coming and self._coming[0].done()):
            self._coming.popleft().result()

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
        begun: Callable[[str], object],
        ahead: bool,
    ) -> JobState:
        """Sign a request and keep it, or find the one that was kept.

        begun: told the job's id before the node is; ahead: have the node decide and reserve before the first turn.
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
        else:
            state = self._states.load(job)
            if (state.input_digest, state.asked) != (input_digest.hex(), asked):
                raise ParameterError(f"job {job} was for another table, dataset or output: start a new job")
            if requests.read(state.request).sizes.consumer != sizes.consumer:
                raise ParameterError(
                    f"job {job} was for another number of keys of ours: pass the same table and pad_to"
                )
        begun(state.job)
        if ahead:
            opening = self._opening(state, sizes)
            first = TurnDescriptor(job=state.job, run=0, turn=0, opening=opening).encode()
            self._retry(state.job, lambda: self._channel.action("open", first))
        return state

    def _opening(self, state: JobState, sizes: Sizes) -> Opening:
        return Opening(grant=self._token, request=state.request, rows=sizes.provider)

    def _run(
        self, party: Party[T], operation: Operation, sizes: Sizes, state: JobState, *, resumable: bool
    ) -> Computed[T]:
        params = state.asked["params"]
        binding = Binding(hash_of(self._token), operation.id, params, operation.consumer, operation.provider)
        runner = Runner(party, binding, leads=True, job=state.job)
        link = Link(self._channel, self._states, self._opening(state, sizes), state.job, keeps=resumable)
        signed: list[Future[bytes]] = []

        def acknowledge(answer: Answer) -> None:
            if not signed:
                keep = partial(link.keep, runner.cost.turns - 1)
                signed.append(self._acknowledging.submit(self._countersign, state, [answer.digest], keep))

        try:
            self._retry(state.job, lambda: drive(runner, link.exchange, released=acknowledge))
        except TrustcomputeError:
            wait(signed)
            if not (runner.done and signed) or signed[0].exception() is not None:
                raise
            # Our result is complete and acknowledged; only our last turn, which tells the peer its part, is lost.
            log.warning("job %s: the last turn could not be delivered", state.job)
        answer = runner.answer or Answer(turn_digest([]), runner.transcript)
        acknowledge(answer)  # where nothing was released to this side
        check = partial(check_charge, state=state, answer=answer, bound=operation.bound(params, sizes))
        return Computed(
            runner.result,
            runner.cost,
            operation.leakage(params),
            job=state.job,
            acknowledged=self._finished(state, signed[0], check),
        )

    def _countersign(self, state: JobState, answers: Sequence[str], keep: Callable[[], None]) -> bytes:
        """Acknowledge answers once they are kept; returns the receipt as it came."""
        keep()
        token = requests.countersign(
            job=state.job, request=state.request, answers=answers, key=self._identity.key
        )
        body = CountersignRequest(token=token).encode()
        return self._retry(state.job, lambda: self._channel.action("countersign", body))

    def _finished(
        self, state: JobState, signed: Future[bytes], check: Callable[[Receipt], None]
    ) -> Future[Receipt]:
        """The receipt, checked when it has come; the job's secrets are forgotten then."""

        def finish() -> Receipt:
            raw = signed.result()
            receipt = self._verified(raw, state.job)
            check(receipt)
            self._states.finish(state.job, raw, str(self.log_key))
            return receipt

        self._coming.append(self._acknowledging.submit(finish))
        return self._coming[-1]

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
