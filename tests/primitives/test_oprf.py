"""The OPRF against the vectors of RFC 9497 Appendix A.1, and what its two sides refuse."""

from __future__ import annotations

import copy
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from trustcompute.errors import ParameterError, RemoteProtocolError, VerificationError
from trustcompute.primitives import oprf
from trustcompute.primitives.oprf import Mode
from trustcompute.primitives.ristretto255 import ORDER
from trustcompute.primitives.rng import Rng

ALL_VECTORS = Path(__file__).resolve().parents[2] / "../shared/vectors/rfc9497-voprf.json"
NOT_CANONICAL = bytes.fromhex(
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
)  # p, that is 0
BLIND = "64d37aed22a27f5191de1c1d69fadb899d8862b58eb4220029e036ec4c1f6706"
SECOND_BLIND = "222a5e897cf59db8145db8d16e597e8facb80ae7d4e26d9881aa6f61d645fc0e"

# RFC 9497 A.1.1.1 (mode 0, test vector 1) and A.1.2.3 (mode 1, test vector 3, a batch of two).
TRANSCRIBED: list[dict[str, Any]] = [
    {
        "mode": 0,
        "seed": "a3" * 32,
        "keyInfo": "74657374206b6579",
        "skSm": "5ebcea5ee37023ccb9fc2d2019f9d7737be85591ae8652ffa9ef0f4d37063b0e",
        "vectors": [
            {
                "Blind": BLIND,
                "BlindedElement": "609a0ae68c15a3cf6903766461307e5c8bb2f95e7e6550e1ffa2dc99e412803c",
                "EvaluationElement": "7ec6578ae5120958eb2db1745758ff379e77cb64fe77b0b2d8cc917ea0869c7e",
                "Input": "00",
                "Output": "527759c3d9366f277d8c6020418d96bb393ba2afb20ff90df23fb7708264e2f3"
                "ab9135e3bd69955851de4b1f9fe8a0973396719b7912ba9ee8aa7d0b5e24bcf6",
            }
        ],
    },
    {
        "mode": 1,
        "seed": "a3" * 32,
        "keyInfo": "74657374206b6579",
        "skSm": "e6f73f344b79b379f1a0dd37e07ff62e38d9f71345ce62ae3a9bc60b04ccd909",
        "pkSm": "c803e2cc6b05fc15064549b5920659ca4a77b2cca6f04f6b357009335476ad4e",
        "vectors": [
            {
                "Blind": f"{BLIND},{SECOND_BLIND}",
                "BlindedElement": "863f330cc1a1259ed5a5998a23acfd37fb4351a793a5b3c090b642ddc439b945,"
                "90a0145ea9da29254c3a56be4fe185465ebb3bf2a1801f7124bbbadac751e654",
                "EvaluationElement": "aa8fa048764d5623868679402ff6108d2521884fa138cd7f9c7669a9a014267e,"
                "cc5ac221950a49ceaa73c8db41b82c20372a4c8d63e5dded2db920b7eee36a2a",
                "Input": "00,5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a",
                "Output": "b58cfbe118e0cb94d79b5fd6a6dafb98764dff49c14e1770b566e42402da1a7d"
                "a4d8527693914139caee5bd03903af43a491351d23b430948dd50cde10d32b3c,"
                "8a9a2f3c7f085b65933594309041fc1898d42d0858e59f90814ae90571a6df60"
                "356f4610bf816f27afdd84f47719e480906d27ecd994985890e5f539e7ea74b6",
                "Proof": {
                    "proof": "cc203910175d786927eeb44ea847328047892ddf8590e723c37205cb74600b0a"
                    "5ab5337c8eb4ceae0494c2cf89529dcf94572ed267473d567aeed6ab873dee08",
                    "r": "419c4f4f5052c53c45f3da494d2b67b220d02118e0857cdbcf037f9ea84bbe0c",
                },
            }
        ],
    },
]


class Told:
    """Stands in for ``Rng`` where a vector fixes the one scalar that is drawn."""

    def __init__(self, scalar: bytes) -> None:
        self.drawn = scalar + bytes(32)

    def array(self, count: int) -> NDArray[np.uint8]:
        assert count == len(self.drawn)
        return np.frombuffer(self.drawn, dtype=np.uint8)


def rows(text: str) -> NDArray[np.uint8]:
    return np.array([list(bytes.fromhex(part)) for part in text.split(",")], dtype=np.uint8)


def replay(suite: dict[str, Any]) -> None:
    """One set of keys and its vectors; inputs of one vector may differ in width, so they go one by one."""
    mode = Mode(suite["mode"])
    key = oprf.derive_key(bytes.fromhex(suite["seed"]), bytes.fromhex(suite["keyInfo"]), mode)
    assert key.to_bytes().hex() == suite["skSm"]
    if mode is Mode.VOPRF:
        assert oprf.public_key(key).hex() == suite["pkSm"]
    for vector in suite["vectors"]:
        inputs = [rows(part) for part in vector["Input"].split(",")]
        outputs, blinds = rows(vector["Output"]), rows(vector["Blind"])
        blinded, evaluated = rows(vector["BlindedElement"]), rows(vector["EvaluationElement"])
        for i, x in enumerate(inputs):
            assert np.array_equal(oprf.blind(x, blinds[i : i + 1], mode), blinded[i : i + 1])
            assert np.array_equal(
                oprf.finalize(x, blinds[i : i + 1], evaluated[i : i + 1]), outputs[i : i + 1]
            )
            assert np.array_equal(oprf.evaluate_inputs(key, x, mode), outputs[i : i + 1])
        assert np.array_equal(oprf.evaluate(key, blinded), evaluated)
        if mode is Mode.VOPRF:
            nonce = Told(bytes.fromhex(vector["Proof"]["r"]))
            proof = oprf.prove(key, blinded, evaluated, nonce)  # type: ignore[arg-type]
            assert proof.hex() == vector["Proof"]["proof"]
            oprf.verify(oprf.public_key(key), blinded, evaluated, proof)


@pytest.mark.vectors
@pytest.mark.parametrize("suite", TRANSCRIBED, ids=["A.1.1.1", "A.1.2.3"])
def test_transcribed_vectors(suite: dict[str, Any]) -> None:
    replay(suite)


@pytest.mark.vectors
def test_all_vectors_of_the_suite() -> None:
    if not ALL_VECTORS.exists():
        pytest.skip("the full vector file of RFC 9497 is not beside this repository")
    suites = [
        suite
        for suite in json.loads(ALL_VECTORS.read_text())
        if suite["identifier"] == "ristretto255-SHA512" and suite["mode"] in tuple(Mode)
    ]
    assert [len(suite["vectors"]) for suite in suites] == [2, 3]
    for suite in suites:
        replay(suite)


def batch(count: int) -> tuple[oprf.SecretKey, NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    rng = Rng.derive(bytes(32), info=b"test_oprf")
    key = oprf.generate_key(rng)
    inputs, blinds = rng.array(20 * count).reshape(count, 20), oprf.random_scalars(rng, count)
    return key, inputs, blinds, oprf.blind(inputs, blinds, Mode.VOPRF)


@pytest.mark.parametrize("count", [0, 1, 5])
def test_client_and_key_holder_agree(count: int) -> None:
    key, inputs, blinds, blinded = batch(count)
    outputs = oprf.finalize(inputs, blinds, oprf.evaluate(key, blinded))
    assert outputs.shape == (count, oprf.OUTPUT)
    assert np.array_equal(outputs, oprf.evaluate_inputs(key, inputs, Mode.VOPRF))
    assert not count or not np.array_equal(outputs, oprf.evaluate_inputs(key, inputs, Mode.OPRF))


def test_an_executor_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trustcompute.primitives.parallel.map_rows.__kwdefaults__", {"chunk": 2})
    key, inputs, blinds, blinded = batch(5)
    with ThreadPoolExecutor(2) as executor:
        assert np.array_equal(oprf.blind(inputs, blinds, Mode.VOPRF, executor=executor), blinded)
        evaluated = oprf.evaluate(key, blinded, executor=executor)
        outputs = oprf.finalize(inputs, blinds, evaluated, executor=executor)
        own = oprf.evaluate_inputs(key, inputs, Mode.VOPRF, executor=executor)
    assert np.array_equal(evaluated, oprf.evaluate(key, blinded))
    assert np.array_equal(outputs, own)


@pytest.mark.parametrize(
    ("encoding", "what"),
    [(bytes(32), "identity"), (NOT_CANONICAL, "canonical")],
    ids=["identity", "not canonical"],
)
def test_bad_elements_are_refused_by_both_sides_with_their_row(encoding: bytes, what: str) -> None:
    key, inputs, blinds, blinded = batch(3)
    altered = blinded.copy()
    altered[1] = list(encoding)
    with pytest.raises(RemoteProtocolError, match=f"row 1 of the blinded elements is .*{what}"):
        oprf.evaluate(key, altered)
    with pytest.raises(RemoteProtocolError, match=f"row 1 of the evaluated elements is .*{what}"):
        oprf.finalize(inputs, blinds, altered)
    proof = oprf.prove(key, blinded, oprf.evaluate(key, blinded), Rng.from_os())
    with pytest.raises(VerificationError, match=f"row 1 of the evaluated elements is .*{what}"):
        oprf.verify(oprf.public_key(key), blinded, altered, proof)
    with pytest.raises(VerificationError, match=f"row 1 of the blinded elements is .*{what}"):
        oprf.verify(oprf.public_key(key), altered, blinded, proof)
    with pytest.raises(VerificationError, match="public key"):
        oprf.verify(encoding, blinded, blinded, proof)


def test_a_short_answer_is_the_peers_fault() -> None:
    key, inputs, blinds, blinded = batch(3)
    with pytest.raises(RemoteProtocolError, match="2 elements came back for 3"):
        oprf.finalize(inputs, blinds, oprf.evaluate(key, blinded)[:2])


def test_a_zero_or_missing_blind_is_refused() -> None:
    _, inputs, blinds, _ = batch(3)
    blinds = blinds.copy()
    blinds[2] = list(ORDER.to_bytes(32, "little"))
    with pytest.raises(ParameterError, match="blind of row 2 is zero"):
        oprf.blind(inputs, blinds, Mode.OPRF)
    with pytest.raises(ParameterError, match="a blind of its own"):
        oprf.blind(inputs, blinds[:1], Mode.OPRF)
    with pytest.raises(ParameterError, match="at most 65535 bytes"):
        oprf.blind(np.zeros((3, 65536), np.uint8), blinds, Mode.OPRF)


def test_a_proof_covers_exactly_its_statement() -> None:
    key, _, _, blinded = batch(3)
    evaluated, public = oprf.evaluate(key, blinded), oprf.public_key(key)
    proof = oprf.prove(key, blinded, evaluated, Rng.from_os())
    oprf.verify(public, blinded, evaluated, proof)
    other = oprf.generate_key(Rng.from_os())
    mixed = np.concatenate([evaluated[:2], oprf.evaluate(other, blinded[2:])])
    for statement in [
        (oprf.public_key(other), blinded, evaluated),
        (public, blinded, mixed),
        (public, blinded[::-1], evaluated),
        (public, evaluated, blinded),
        (public, blinded[:2], evaluated[:2]),
    ]:
        with pytest.raises(VerificationError):
            oprf.verify(*statement, proof)
    for position in range(0, 64, 9):
        flipped = bytearray(proof)
        flipped[position] ^= 1
        with pytest.raises(VerificationError):
            oprf.verify(public, blinded, evaluated, bytes(flipped))
    shifted = (int.from_bytes(proof[32:], "little") + ORDER).to_bytes(32, "little")
    with pytest.raises(VerificationError, match="below the group order"):
        oprf.verify(public, blinded, evaluated, proof[:32] + shifted)


def test_two_proofs_of_one_statement_share_nothing() -> None:
    key, _, _, blinded = batch(2)
    evaluated = oprf.evaluate(key, blinded)
    first, second = (oprf.prove(key, blinded, evaluated, Rng.from_os()) for _ in range(2))
    assert first[:32] != second[:32]
    assert first[32:] != second[32:]


def test_a_proof_has_a_largest_batch() -> None:
    key, _, _, blinded = batch(1)
    many = np.broadcast_to(blinded, (oprf.MAX_PROVED + 1, 32))
    with pytest.raises(ParameterError, match="prove in batches"):
        oprf.prove(key, many, many, Rng.from_os())
    with pytest.raises(ParameterError):
        oprf.prove(key, blinded[:0], blinded[:0], Rng.from_os())


def test_a_key_tells_nothing_by_accident() -> None:
    key = oprf.generate_key(Rng.from_os())
    assert key.to_bytes().hex() not in repr(key) + str(key)
    with pytest.raises(TypeError):
        copy.copy(key)
    assert np.array_equal(oprf.SecretKey(key.to_bytes()).scalar, key.scalar)


@pytest.mark.parametrize("encoding", [bytes(32), ORDER.to_bytes(32, "little"), b"\xff" * 32, b"", bytes(31)])
def test_only_canonical_keys_are_read(encoding: bytes) -> None:
    with pytest.raises(ParameterError):
        oprf.SecretKey(encoding)
