from __future__ import annotations

import datetime
import ssl
import stat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives import identity
from trustcompute.primitives.identity import CertificateAuthority, Identity
from trustcompute.primitives.signing import SigningKey

AUTHORITY = CertificateAuthority.create("Example authority")
BUREAU = AUTHORITY.issue("bureau.example")
BANK = AUTHORITY.issue("bank.example")


def test_a_certificate_names_its_holder_once_and_carries_its_key() -> None:
    leaf = identity.verify_certificate(BUREAU.certificate, AUTHORITY.certificate)
    assert identity.peer_name(leaf) == BUREAU.name == "bureau.example"
    assert identity.peer_key(leaf) == BUREAU.key.public
    assert BUREAU.thumbprint == BUREAU.key.thumbprint
    remaining = BUREAU.expires - datetime.datetime.now(datetime.UTC)
    assert datetime.timedelta(days=364) < remaining <= datetime.timedelta(days=365)


def _context(owner: Identity, directory: Path, *, server: bool) -> ssl.SSLContext:
    owner.save(directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(directory / identity.CERTIFICATE_FILE, directory / identity.KEY_FILE)
    context.load_verify_locations(directory / identity.AUTHORITY_FILE)
    context.verify_mode = ssl.CERT_REQUIRED
    return context


def _handshake(
    client: ssl.SSLContext, server: ssl.SSLContext, name: str
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    left = client.wrap_bio(down, up, server_hostname=name)
    right = server.wrap_bio(up, down, server_side=True)
    waiting = [left, right]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                pass
    assert not waiting
    return left, right


def test_mutual_tls_accepts_the_certificates(tmp_path: Path) -> None:
    client = _context(BANK, tmp_path / "bank", server=False)
    server = _context(BUREAU, tmp_path / "bureau", server=True)
    left, right = _handshake(client, server, "bureau.example")
    assert left.version() == "TLSv1.3"
    shown = right.getpeercert(binary_form=True)
    assert shown is not None
    assert identity.peer_key(x509.load_der_x509_certificate(shown)) == BANK.key.public
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        _handshake(client, server, "other.example")


def test_mutual_tls_refuses_certificates_of_another_authority(tmp_path: Path) -> None:
    stranger = CertificateAuthority.create("Another authority").issue("bureau.example")
    client = _context(BANK, tmp_path / "bank", server=False)
    server = _context(stranger, tmp_path / "stranger", server=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        _handshake(client, server, "bureau.example")


def test_an_identity_survives_its_directory_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    home = tmp_path / "home"
    BUREAU.save(home)
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in home.iterdir()} == {0o600}
    assert sorted(path.name for path in home.iterdir()) == ["authority.pem", "certificate.pem", "key.pem"]
    again = Identity.load(home)
    assert again.name == BUREAU.name and again.key.public == BUREAU.key.public
    assert again.certificate == BUREAU.certificate and again.authority == BUREAU.authority
    BUREAU.save(home)  # saving again replaces
    assert Identity.load(home).thumbprint == BUREAU.thumbprint


def test_an_authority_survives_its_directory(tmp_path: Path) -> None:
    AUTHORITY.save(tmp_path / "ca")
    again = CertificateAuthority.load(tmp_path / "ca")
    assert again.name == "Example authority"
    renewed = again.issue("bureau.example", 30, key=BUREAU.key)
    assert renewed.thumbprint == BUREAU.thumbprint
    identity.verify_certificate(renewed.certificate, AUTHORITY.certificate)


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="belongs to another key"):
        Identity("bureau.example", BANK.key, BUREAU.certificate, BUREAU.authority)
    with pytest.raises(ParameterError, match=r"is for bureau\.example"):
        Identity("bank.example", BUREAU.key, BUREAU.certificate, BUREAU.authority)
    BUREAU.save(tmp_path)
    (tmp_path / identity.KEY_FILE).write_bytes(BANK.key.to_pem())
    with pytest.raises(ParameterError, match="belongs to another key"):
        Identity.load(tmp_path)
    (tmp_path / identity.KEY_FILE).unlink()
    with pytest.raises(ParameterError, match="cannot read"):
        Identity.load(tmp_path)


def test_certificates_of_others_and_out_of_date_are_refused() -> None:
    other = CertificateAuthority.create("Example authority")
    with pytest.raises(VerificationError, match="trusted authority"):
        identity.verify_certificate(BUREAU.certificate, other.certificate)
    late = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=366)
    with pytest.raises(VerificationError, match="not valid at this time"):
        identity.verify_certificate(BUREAU.certificate, AUTHORITY.certificate, at=late)
    with pytest.raises(VerificationError, match="no certificate"):
        identity.verify_certificate(b"nothing", AUTHORITY.certificate)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Bureau.example",
        "bureau example",
        "-bureau",
        "bureau.",
        "a" * 64,
        "bü.example",
        "*.example",
        "a\n",
    ],
)
def test_names_that_are_not_dns_names_are_refused(name: str) -> None:
    with pytest.raises(ParameterError, match="DNS name"):
        AUTHORITY.issue(name)


@pytest.mark.parametrize("days", [0, 4000])
def test_validity_is_bounded(days: int) -> None:
    with pytest.raises(ParameterError, match="1 to 3650 days"):
        AUTHORITY.issue("bureau.example", days)


def _certificate(names: list[x509.GeneralName] | None) -> bytes:
    key = generate_private_key(SECP256R1())
    subject = x509.Name([])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
    )
    if names is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
    from cryptography.hazmat.primitives.hashes import SHA256

    return builder.sign(key, SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    "names",
    [
        None,
        [x509.DNSName("a.example"), x509.DNSName("b.example")],
        [x509.UniformResourceIdentifier("https://a.example")],
        [x509.DNSName("a.example")],  # one name, but not an Ed25519 key
    ],
)
def test_foreign_certificates_need_one_dns_name_and_an_ed25519_key(
    names: list[x509.GeneralName] | None,
) -> None:
    with pytest.raises(VerificationError):
        Identity("a.example", SigningKey.generate(), _certificate(names), AUTHORITY.certificate)
