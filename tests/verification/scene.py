"""Two parties and what goes between them: played in one process, looked at, or spoiled on the way."""

from __future__ import annotations

import numpy as np

from trustcompute.primitives.rng import Rng
from trustcompute.primitives.signing import SigningKey
from trustcompute.protocol.message import Message
from trustcompute.protocol.party import Receive, Send
from trustcompute.verification import bucket, building, download, private, proof, truth
from trustcompute.verification.answer import Questions
from trustcompute.verification.bucket import Promise
from trustcompute.verification.predicate import parse
from trustcompute.verification.table import About

HOLDER = SigningKey.from_seed(b"h" * 32)
SEED, PLACE = b"s" * 32, b"p" * 32


def built(held, predicate, subject="id", *, version="1", epoch=1, **options):
    about = About(
        dataset="held",
        version=version,
        subject=(subject,),
        predicate=parse(predicate),
        place=PLACE,
        epoch=epoch,
    )
    decided = truth.decide(held, (subject,), about.predicate)
    return building.build(about, decided, SEED, HOLDER, **options)


def promise(made):
    return Promise(made.masked.token, made.id, made.descriptor, HOLDER.public)


def check_for(made):
    return proof.issue(made.id, made.masked.database, Rng.from_os(), HOLDER)


def bucket_parties(made, questions, *, served=None, signer=HOLDER):
    return (
        bucket.consumer(promise(made), questions, Rng.from_os()),
        bucket.provider(served or made, len(questions), Rng.from_os(), signer),
    )


def private_parties(made, questions, *, served=None, signer=HOLDER, check=None, public=None):
    return (
        private.consumer(promise(made), questions, check or check_for(made), public, Rng.from_os()),
        private.provider(served or made, len(questions), public is None, Rng.from_os(), signer),
    )


def batch_parties(made, questions, **options):
    return private_parties(made, questions.padded(16, Rng.from_os()), **options)


def download_parties(made, questions, *, served=None, signer=HOLDER, columns=None):
    return (
        download.consumer(promise(made), questions, columns, Rng.from_os()),
        download.provider(served or made, len(questions), columns is None, Rng.from_os(), signer),
    )


def answers_of(result):
    """Of whichever mode."""
    return result if isinstance(result, list) else result.answers


def play(consumer, provider, spoil=lambda kind, columns: columns):
    """(result or error of the consumer, what it showed: kinds, types and shapes of all it sent, and the messages)."""
    shown, sent, to_consumer = [], [], []
    pending, there = next(consumer), next(provider)
    while True:
        if isinstance(pending, Send):
            shown.append(
                (pending.message.kind, {n: (c.dtype, c.shape) for n, c in pending.message.columns.items()})
            )
            sent.append(pending.message)
            assert isinstance(there, Receive)
            there = _step(provider, pending.message)
            value = None
        else:
            while isinstance(there, Send):
                message = there.message
                columns = {n: np.array(c) for n, c in message.columns.items()}
                to_consumer.append(Message(message.kind, spoil(message.kind, columns)))
                there = _step(provider, None)
            value = to_consumer.pop(0)
            for name, column in pending.columns.items():
                assert column.admits(value[name].dtype.str[1:], value[name].shape)
        try:
            pending = consumer.send(value)
        except StopIteration as stop:
            return stop.value, shown, sent
        except Exception as error:
            return error, shown, sent


def _step(party, message):
    try:
        return party.send(message)
    except StopIteration:
        return None


def questions(made, keys):
    from trustcompute.verification import question

    return question.asked(made.descriptor, question.listed(made.descriptor, keys)).questions


__all__ = ["Questions"]
