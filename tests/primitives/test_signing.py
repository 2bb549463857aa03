from __future__ import annotations

import base64
import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from joserfc import jws
from joserfc.jwk import OKPKey

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives import canonical, signing
from trustcompute.primitives.signing import SigningKey, TokenError, VerifyKey

TYPE = "tc-test+jwt"
KEY = SigningKey.from_seed(bytes(range(32)))
CLAIMS = {"jti": "7", "list": [1, 2], "name": "bureau"}
TOKEN = signing.sign(TYPE, CLAIMS, KEY)

# RFC 8032 §7.1, tests 1 to 3: private key, public key, message, signature
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
        "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
        "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]


@pytest.mark.vectors
@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC8032)
def test_rfc8032(seed: str, public: str, message: str, signature: str) -> None:
    key = SigningKey.from_seed(bytes.fromhex(seed))
    assert key.public.raw.hex() == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    key.public.verify(bytes.fromhex(signature), bytes.fromhex(message))
    with pytest.raises(VerificationError):
        key.public.verify(bytes.fromhex(signature), bytes.fromhex(message) + b"x")


@pytest.mark.vectors
def test_rfc8037_thumbprint() -> None:
    # RFC 8037 appendix A.3, the key of RFC 8032 test 1
    key = VerifyKey.from_x("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")
    assert key.thumbprint == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"


@pytest.mark.vectors
def test_rfc8037_signature() -> None:
    # RFC 8037 appendix A.4: the same key signs with the older algorithm name, which our tokens do not accept
    token = (
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc."
        "hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"
    )
    head, payload, signature = token.split(".")
    key = SigningKey.from_seed(bytes.fromhex(RFC8032[0][0]))
    key.public.verify(signing.b64url_decode(signature), f"{head}.{payload}".encode())
    with pytest.raises(TokenError) as caught:
        signing.parse(token, TYPE)
    assert caught.value.field == "header"


@pytest.mark.peer
def test_joserfc_accepts_our_tokens_and_we_accept_its() -> None:
    members = {"kty": "OKP", "crv": "Ed25519", "x": KEY.public.x}
    theirs = OKPKey.import_key(members | {"d": signing.b64url(bytes(range(32)))})
    assert theirs.thumbprint() == KEY.thumbprint
    opened = jws.deserialize_compact(TOKEN, OKPKey.import_key(members), algorithms=["Ed25519"])
    assert opened.payload == canonical.dumps(CLAIMS)
    header = {"alg": "Ed25519", "typ": TYPE}
    made = jws.serialize_compact(header, canonical.dumps(CLAIMS), theirs, algorithms=["Ed25519"])
    assert signing.verify(made, TYPE, KEY.public) == CLAIMS


def test_the_protected_header_is_one_constant() -> None:
    assert signing.b64url_decode(TOKEN.split(".")[0]) == b'{"alg":"Ed25519","typ":"tc-test+jwt"}'


@pytest.mark.property
@given(st.integers(0, len(TOKEN) - 1), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_any_changed_byte_of_a_token_is_refused(position: int, change: int) -> None:
    data = bytearray(TOKEN.encode())
    data[position] ^= change
    with pytest.raises(TokenError):
        signing.verify(data.decode("latin-1"), TYPE, KEY.public)


def test_spare_bits_of_the_signature_do_not_make_a_second_token() -> None:
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    last = alphabet.index(TOKEN[-1])
    for spare in range(1, 16):  # 64 bytes leave four bits of the last character unused
        with pytest.raises(TokenError) as caught:
            signing.verify(TOKEN[:-1] + alphabet[last ^ spare], TYPE, KEY.public)
        assert caught.value.field == "signature"


def _token(head: str, payload: bytes) -> str:
    signed = f"{signing.b64url(head.encode())}.{signing.b64url(payload)}"
    return f"{signed}.{signing.b64url(KEY.sign(signed.encode()))}"


@pytest.mark.parametrize(
    "head",
    [
        '{"alg":"none","typ":"tc-test+jwt"}',
        '{"alg":"EdDSA","typ":"tc-test+jwt"}',
        '{"alg":"HS256","typ":"tc-test+jwt"}',
        '{"typ":"tc-test+jwt","alg":"Ed25519"}',
        '{"alg":"Ed25519","typ":"tc-grant+jwt"}',
        '{"alg":"Ed25519","kid":"x","typ":"tc-test+jwt"}',
        '{"alg":"Ed25519","crit":["exp"],"typ":"tc-test+jwt"}',
        "{}",
    ],
)
def test_any_other_header_is_refused_though_well_signed(head: str) -> None:
    with pytest.raises(TokenError) as caught:
        signing.verify(_token(head, canonical.dumps(CLAIMS)), TYPE, KEY.public)
    assert caught.value.field == "header"


@pytest.mark.parametrize(
    ("payload", "field"),
    [
        (b'{"a":1,"a":2}', "a"),
        (b'{"b":1,"a":2}', "payload"),
        (b'{"a": 1}', "payload"),
        (b'{"a":1.5}', "a"),
        (b"[]", "payload"),
        (b"not json", "payload"),
    ],
)
def test_payloads_without_canonical_form_are_refused_though_well_signed(payload: bytes, field: str) -> None:
    with pytest.raises(TokenError) as caught:
        signing.verify(_token('{"alg":"Ed25519","typ":"tc-test+jwt"}', payload), TYPE, KEY.public)
    assert caught.value.field == field


@pytest.mark.parametrize(
    "token", ["", "a.b", TOKEN + ".x", TOKEN + "=", " " + TOKEN, TOKEN[:-2], "é" + TOKEN, "a" * 40_000]
)
def test_malformed_tokens_are_refused(token: str) -> None:
    with pytest.raises(TokenError):
        signing.verify(token, TYPE, KEY.public)


def test_another_key_does_not_verify() -> None:
    with pytest.raises(TokenError) as caught:
        signing.verify(TOKEN, TYPE, SigningKey.generate().public)
    assert caught.value.field == "signature"


def test_claims_that_make_too_large_a_token_are_refused() -> None:
    with pytest.raises(ParameterError, match="may have 32768 characters"):
        signing.sign(TYPE, {"a": "x" * 40_000}, KEY)


def _low_order_encodings() -> list[bytes]:
    """All points of order dividing 8, by multiplying random points by the group's prime order."""
    p, order = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
    d = -121665 * pow(121666, -1, p) % p

    def add(a: tuple[int, int], b: tuple[int, int]) -> tuple[int, int]:
        t = d * a[0] * b[0] * a[1] * b[1] % p
        x = (a[0] * b[1] + a[1] * b[0]) * pow(1 + t, -1, p) % p
        return x, (a[1] * b[1] + a[0] * b[0]) * pow(1 - t, -1, p) % p

    def multiply(point: tuple[int, int], scalar: int) -> tuple[int, int]:
        total = (0, 1)
        while scalar:
            if scalar & 1:
                total = add(total, point)
            point, scalar = add(point, point), scalar >> 1
        return total

    found, y = set(), 2
    while len(found) < 8:
        y += 1
        square = (y * y - 1) * pow(d * y * y + 1, -1, p) % p
        x = pow(square, (p + 3) // 8, p)
        if x * x % p != square:
            x = x * pow(2, (p - 1) // 4, p) % p
        if x * x % p == square:
            low = multiply((x, y), order)
            found |= {low, (-low[0] % p, low[1])}
    return [(point[1] | (point[0] & 1) << 255).to_bytes(32, "little") for point in found]


def test_keys_of_low_order_and_second_encodings_are_refused() -> None:
    encodings = _low_order_encodings()
    assert len(set(encodings)) == 8
    for raw in [*encodings, (2**255 - 19 + 3).to_bytes(32, "little"), b"short"]:
        with pytest.raises(VerificationError):
            VerifyKey(raw)


def test_keys_round_trip_and_show_nothing_secret() -> None:
    again = SigningKey.from_pem(KEY.to_pem())
    assert again.public == KEY.public == VerifyKey.from_pem(KEY.public.to_pem())
    assert VerifyKey.from_x(KEY.public.x) == KEY.public
    assert repr(KEY) == f"SigningKey({KEY.thumbprint}, private part not shown)"
    assert SigningKey.generate().public != SigningKey.generate().public


def test_files_that_hold_no_key_are_refused() -> None:
    with pytest.raises(ParameterError):
        SigningKey.from_pem(b"nothing")
    with pytest.raises(ParameterError):
        SigningKey.from_pem(KEY.public.to_pem())
    with pytest.raises(ParameterError):
        SigningKey.from_seed(b"short")
    with pytest.raises(VerificationError):
        VerifyKey.from_pem(KEY.to_pem())


def test_the_hash_of_a_token_is_that_of_its_ascii_form() -> None:
    assert signing.token_hash(TOKEN) == hashlib.sha256(TOKEN.encode()).hexdigest()
    assert base64.urlsafe_b64decode(TOKEN.split(".")[1] + "==") == canonical.dumps(CLAIMS)
