"""Labels of matched keys: those a join would bring, encrypted for everybody else."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute import psi
from trustcompute.errors import ParameterError, RemoteProtocolError, TableError
from trustcompute.primitives.rng import Rng
from trustcompute.protocol.message import Message
from trustcompute.protocol.operation import OutputForm, Sizes
from trustcompute.protocol.party import Send
from trustcompute.psi import labels, operation, parties

LEFT = pa.table({"id": ["a", "b", "c", "b", None], "row": range(5)})
RIGHT = pa.table(
    {"key": ["c", "x", "b", "c"], "score": [7, None, None, 9], "row": ["seven", "x", "two", "nine"]}
)


def intersect(left=LEFT, right=RIGHT, on=None, **options):
    return psi.intersect(left, right, on=on or {"id": "key"}, **({"labels": ["score", "row"]} | options))


@pytest.mark.parametrize("reveal", ["left", "both"])
@pytest.mark.parametrize("protocol", ["auto", "psi.vole.v1"])
def test_rows_have_the_labels_of_their_keys(reveal, protocol):
    found = intersect(reveal=reveal, protocol=protocol)
    assert found.protocol == "psi.vole.v1"
    assert found.table().to_pylist() == [
        {"id": "b", "row": 1, "score": None, "row_right": "two"},
        {"id": "c", "row": 2, "score": 7, "row_right": "seven"},
        {"id": "b", "row": 3, "score": None, "row_right": "two"},
    ]
    assert found.table("left")["score"].to_pylist() == [None, None, 7, None, None]
    assert found.table("difference").column_names == ["id", "row"]
    assert "of keys that match also score, row" in found.leakage.consumer
    assert "score" not in found.leakage.provider
    assert found.labels.num_rows == found.count == 2


@pytest.mark.property
@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.integers(0, 40), max_size=40),
    st.dictionaries(st.integers(0, 40), st.one_of(st.none(), st.text(max_size=40)), max_size=40),
)
def test_equal_to_a_join(left, right):
    held = {"id": list(right), "label": pa.array(list(right.values()), pa.string())}
    found = intersect({"id": left}, held, on="id", labels="label")
    assert found.table()["label"].to_pylist() == [right[key] for key in left if key in right]


@pytest.mark.parametrize(
    "options",
    [
        {"protocol": "psi.dh.v1"},
        {"protocol": "psi.ecdh.v1"},
        {"protocol": "psi.vole-malicious.v1"},
        {"output": "count"},
        {"reveal": "right"},
        {"labels": ["row", "row"]},
    ],
)
def test_what_cannot_have_labels_says_so(options):
    with pytest.raises(ParameterError, match=r"label|rows"):
        intersect(**options)


def test_a_column_that_is_not_there():
    with pytest.raises(TableError, match="no column 'scores'"):
        intersect(labels=["scores"])


ASKED = {"columns": ["id"], "keys": "0" * 64}
VOLE = operation.named("psi.vole.v1")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"labels": []}, "labels"),
        ({"labels": "score"}, "labels"),
        ({"labels": [""]}, "labels"),
        ({"labels": [1]}, "labels"),
        ({"labels": ["a"] * 65}, "labels"),
        ({"labels": ["a", "a"]}, "different"),
        ({"label_bytes": 0}, "label_bytes"),
        ({"label_bytes": 4097}, "label_bytes"),
        ({"label_bytes": True}, "label_bytes"),
        ({"label_bytes": "8"}, "label_bytes"),
        ({"runs": 2}, "runs"),
        ({"reveal": "provider"}, "to the consumer"),
    ],
)
def test_parameters_are_checked(wrong, field):
    with pytest.raises(ParameterError, match=field):
        VOLE.check(ASKED | {"labels": ["score"], "label_bytes": 8} | wrong, Sizes(10, 10))


def test_what_the_broker_knows_of_labels():
    params = VOLE.check(ASKED | {"labels": ["score"], "label_bytes": 64}, Sizes(10, 20))
    plain = VOLE.check(ASKED, Sizes(10, 20))
    assert VOLE.output(params) is OutputForm.MATCHED_LABELS
    assert VOLE.output(plain) is OutputForm.MATCHED_IDS
    assert VOLE.scope(params).columns == ("id", "score")
    assert VOLE.bound(params, Sizes(10, 20)).bytes == VOLE.bound(plain, Sizes(10, 20)).bytes + 20 * 64
    assert "labels" not in plain


def digests(numbers):
    return np.array([[number] * 32 for number in numbers], np.uint8)


def conversation(seed=b"s" * 32, label=64):
    """Both parties with fixed keys; the messages, and what the consumer found."""
    sizes = Sizes(3, 4)
    params = VOLE.check(ASKED | {"labels": ["score"], "label_bytes": label}, sizes)
    held = np.arange(4 * label, dtype=np.uint8).reshape(4, label)
    consumer = parties.consumer(
        VOLE.id, params, sizes, digests([1, 2, 3]), Rng.derive(seed, info=b"consumer")
    )
    provider = parties.provider(
        VOLE.id,
        params,
        sizes,
        digests([3, 4, 5, 1]),
        Rng.derive(seed, info=b"provider"),
        labelled=lambda: held,
    )
    return consumer, provider, held


def talk(consumer, provider, change=lambda message: message):
    pending = [next(consumer), next(provider)]
    sides, messages = (consumer, provider), []
    while True:
        mine = 0 if isinstance(pending[0], Send) else 1
        message = change(pending[mine].message)
        messages.append(message)
        try:
            pending[1 - mine] = sides[1 - mine].send(message)
            pending[mine] = sides[mine].send(None)
        except StopIteration as stop:
            return messages, stop.value


@pytest.mark.parametrize("label", [1, 15, 16, 17, 64])
def test_only_matched_labels_can_be_read(label):
    consumer, provider, held = conversation(label=label)
    messages, found = talk(consumer, provider)
    assert found.labels.tolist() == [held[3].tolist(), held[0].tolist()]
    sent = messages[-1]["label"]
    assert sent.shape == (4, label)
    if label >= 15:
        assert not any((row == plain).all() for row in sent for plain in held)


def test_pads_are_fresh_for_every_job():
    one, other = (talk(*conversation(seed=bytes([n]) * 32)[:2])[0][-1]["label"] for n in (1, 2))
    assert not (one[:, None, :] == other[None, :, :]).all(axis=2).any()


def test_the_key_of_a_label_is_not_the_value_that_is_compared():
    """Who sees the table of compared values cannot open a label with them."""
    consumer, provider, held = conversation()
    message = talk(consumer, provider)[0][-1]
    width = message["value"].shape[1]
    keys = np.zeros((4, 16), np.uint8)
    keys[:, :width] = message["value"]
    opened = labels.sealed(keys, message["label"])
    assert not any((row[:16] == plain[:16]).all() for row in opened for plain in held)


def test_an_altered_label_ends_the_run():
    def flip(message):
        if message.kind != "table":
            return message
        label = message["label"].copy()
        label[0, 0] ^= 1
        return Message("table", dict(message.columns) | {"label": label})

    consumer, provider, _ = conversation()
    with pytest.raises(RemoteProtocolError, match="altered"):
        talk(consumer, provider, flip)


def test_sealing_is_undone_by_itself():
    keys = np.random.default_rng(1).integers(0, 256, (5, 16), np.uint8)
    plain = np.zeros((5, 40), np.uint8)
    sealed = labels.sealed(keys, plain)
    assert np.array_equal(labels.sealed(keys, sealed), plain)
    blocks = sealed[:, :32].reshape(10, 16)
    assert len(np.unique(blocks, axis=0)) == 10, "no two blocks have one pad"


def test_empty_sides():
    for left, right in (([], ["a"]), (["a"], []), ([], [])):
        held = pa.table({"id": pa.array(right, pa.string()), "l": pa.array([1] * len(right), pa.int64())})
        found = intersect({"id": pa.array(left, pa.string())}, held, on="id", labels="l")
        assert found.table().num_rows == 0
        assert found.table().column_names == ["id", "l"]
