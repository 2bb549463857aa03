"""Evaluations of a value function as jobs of a broker: reserved, armed, charged before their value is seen.

Used by holders who find out what each of them contributes (``clearing.contribution``). A coalition's value says
something about its parties' data, so it is asked for under a grant, meets its limits and policy, and is in the log:

    value = Charged(broker, ask, OPERATION, evaluate)
    found = contribution.shapley(parties, value)
    broker.clearing.weigh(pool, start, end, found.weights(), method=found.method, evidence=found.hash)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from fractions import Fraction

from trustcompute.broker.broker import Broker
from trustcompute.broker.clearing.contribution import Coalition, Exact
from trustcompute.broker.job import Fault, JobRecord, Release
from trustcompute.broker.request import VerifiedRequest
from trustcompute.protocol.operation import Operation, Usage


@dataclass
class Charged:
    """A value function whose every evaluation is a job. jobs: what was charged, by coalition.

    ask: the signed request for a coalition's evaluation, verified (``broker.verify_request``); evaluate: the value and
    what it used, at most what the operation's bound reserves. What ``evaluate`` raises forfeits the job and goes on.
    Raises ``Refused`` where the grant does not allow another evaluation; nothing is computed then.
    """

    broker: Broker
    ask: Callable[[Coalition], VerifiedRequest]
    operation: Operation
    evaluate: Callable[[Coalition], tuple[Exact, Usage]]
    jobs: dict[Coalition, JobRecord] = field(default_factory=dict)

    def __call__(self, coalition: Coalition) -> Exact:
        verified = self.ask(coalition)
        job = self.broker.reserve(verified, self.operation)
        self.broker.arm(job.id)
        try:
            value, usage = self.evaluate(coalition)
            frame = str(Fraction(value)).encode()
            outbox = self.broker.outbox.write(job.id, 0, 0, [[frame]])
        except BaseException:
            self.broker.abandon(job.id, "evaluation", Fault.PROVIDER)
            raise
        transcript = hashlib.sha256(f"{verified.hash}\n{','.join(sorted(coalition))}\n".encode() + frame)
        release = Release(0, 0, hashlib.sha256(frame).hexdigest(), transcript.hexdigest(), outbox)
        self.jobs[coalition] = self.broker.post(job.id, release=release, usage=usage)
        return value
