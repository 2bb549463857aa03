from __future__ import annotations

import base64

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives import checkpoint
from trustcompute.primitives.checkpoint import Checkpoint, NoteKey
from trustcompute.primitives.signing import SigningKey

KEY = SigningKey.from_seed(bytes(range(32)))
ORIGIN = "bureau.example/log"
LOG = NoteKey(ORIGIN, KEY.public)
POINT = Checkpoint(ORIGIN, 20852163, bytes(range(32)))
NOTE = checkpoint.sign(POINT, KEY)

# The example of the Go package golang.org/x/mod/sumdb/note, where the format comes from.
NEUMANN = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"
NEUMANN_NOTE = (
    "If you think cryptography is the answer to your problem,\n"
    "then you don't know what your problem is.\n"
    "\n"
    "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZ"
    "SNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n"
)


@pytest.mark.vectors
def test_the_format_of_the_specification() -> None:
    lines = NOTE.split("\n")
    assert lines[:4] == [ORIGIN, "20852163", base64.b64encode(bytes(range(32))).decode(), ""]
    assert lines[4].startswith(f"— {ORIGIN} ") and lines[5:] == [""]
    assert checkpoint.verify(NOTE, LOG) == POINT == checkpoint.parse_unverified(NOTE)


@pytest.mark.vectors
def test_a_key_and_note_of_the_reference_implementation() -> None:
    key = NoteKey.parse(NEUMANN)
    assert str(key) == NEUMANN and key.id.hex() == "c74f20a3"
    # The signature verifies; the text is then found not to be a checkpoint.
    with pytest.raises(VerificationError, match="at least three lines"):
        checkpoint.verify(NEUMANN_NOTE, key)
    with pytest.raises(VerificationError, match="signature is not that of key"):
        checkpoint.verify(NEUMANN_NOTE.replace("If you", "If we"), key)


@pytest.mark.property
@given(st.integers(0, len(NOTE.encode()) - 1), st.integers(1, 255))
@settings(max_examples=250, deadline=None)
def test_any_changed_byte_of_a_note_is_refused(position: int, change: int) -> None:
    data = bytearray(NOTE.encode())
    data[position] ^= change
    with pytest.raises(VerificationError):
        checkpoint.verify(data.decode("utf-8", errors="replace"), LOG)


def test_signatures_of_others_are_ignored_and_the_logs_own_is_demanded() -> None:
    witness = SigningKey.generate()
    signed = base64.b64encode(NoteKey("witness.example", witness.public).id + witness.sign(b"x")).decode()
    line = f"— witness.example {signed}\n"
    assert checkpoint.verify(NOTE + line, LOG) == POINT
    text = NOTE[: NOTE.index("\n\n") + 2]
    with pytest.raises(VerificationError, match="not signed by the log"):
        checkpoint.verify(text + line, LOG)
    # Another key under the log's name does not count as the log's.
    forged = base64.b64encode(
        NoteKey(ORIGIN, witness.public).id + witness.sign(POINT.text().encode())
    ).decode()
    with pytest.raises(VerificationError, match="not signed by the log"):
        checkpoint.verify(f"{text}— {ORIGIN} {forged}\n", LOG)
    # A known key whose signature is wrong condemns the note, whatever else is there.
    wrong = base64.b64encode(LOG.id + bytes(64)).decode()
    with pytest.raises(VerificationError):
        checkpoint.verify(f"{NOTE}— {ORIGIN} {wrong}\n", LOG)


def test_a_checkpoint_of_another_origin_is_refused_though_signed_by_the_key() -> None:
    text = Checkpoint("other.example", 1, bytes(32)).text()
    signature = base64.b64encode(LOG.id + KEY.sign(text.encode())).decode()
    with pytest.raises(VerificationError, match="another log"):
        checkpoint.verify(f"{text}\n— {ORIGIN} {signature}\n", LOG)


def _signed(text: str) -> str:
    return f"{text}\n— {ORIGIN} {base64.b64encode(LOG.id + KEY.sign(text.encode())).decode()}\n"


ROOT = base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "text",
    [
        f"{ORIGIN}\n01\n{ROOT}\n",
        f"{ORIGIN}\n-1\n{ROOT}\n",
        f"{ORIGIN}\n1 \n{ROOT}\n",
        f"{ORIGIN}\n9223372036854775808\n{ROOT}\n",
        f"{ORIGIN}\n٣\n{ROOT}\n",
        f"{ORIGIN}\n1\n{ROOT[:-4]}\n",
        f"{ORIGIN}\n1\nnot base64\n",
        f"{ORIGIN}\n1\n",
        f"\n1\n{ROOT}\n",
        f"{ORIGIN}\n1\n{ROOT}\n\nextension after an empty line\n",
        f"{ORIGIN}\r\n1\n{ROOT}\n",
    ],
)
def test_malformed_checkpoints_are_refused_though_well_signed(text: str) -> None:
    with pytest.raises(VerificationError):
        checkpoint.verify(_signed(text), LOG)


def test_extension_lines_and_empty_trees_are_accepted() -> None:
    assert checkpoint.verify(_signed(f"{ORIGIN}\n0\n{ROOT}\nextension\n"), LOG).size == 0


@pytest.mark.parametrize(
    "note", ["", "\n\n", "x", NOTE[:-1], NOTE + "\n", NOTE + "x", NOTE * 40, "x" * 70_000]
)
def test_malformed_notes_are_refused(note: str) -> None:
    with pytest.raises(VerificationError):
        checkpoint.verify(note, LOG)


@pytest.mark.parametrize(
    "text", ["", "a+b", NEUMANN[:-4], NEUMANN.replace("c74f20a3", "c74f20a4"), "x" * 600]
)
def test_malformed_keys_of_logs_are_refused(text: str) -> None:
    with pytest.raises(VerificationError):
        NoteKey.parse(text)


def test_names_and_sizes_are_checked_before_signing() -> None:
    for name in ["", "with space", "with+plus", "x" * 256, "line\nfeed", "no\u00a0break"]:
        with pytest.raises(ParameterError):
            NoteKey(name, KEY.public)
    for point in [Checkpoint(ORIGIN, -1, bytes(32)), Checkpoint(ORIGIN, 1, b"short")]:
        with pytest.raises(ParameterError):
            checkpoint.sign(point, KEY)
