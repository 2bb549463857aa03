"""Identities: one Ed25519 key that signs documents and carries the TLS certificate of one DNS name.

Who calls it: operators (``CertificateAuthority`` makes a small private authority, or bring certificates of
your own), the node and the session (mutual TLS), the broker (signs grants and the log). X.509 as profiled by
RFC 5280 with Ed25519 as in RFC 8410; exactly one subject alternative name, because a Flight server is shown
only that.
"""

from __future__ import annotations

import datetime
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from trustcompute.errors import ParameterError, VerificationError
from trustcompute.primitives.signing import SigningKey, VerifyKey

KEY_FILE: Final = "key.pem"
CERTIFICATE_FILE: Final = "certificate.pem"
AUTHORITY_FILE: Final = "authority.pem"
AUTHORITY_DAYS: Final = 3650
CLOCK_SKEW: Final = datetime.timedelta(minutes=5)

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}\Z){_LABEL}(\.{_LABEL})*\Z")


@dataclass(frozen=True)
class Identity:
    """name: the one DNS name; certificate: PEM chain, leaf first; authority: PEM of the roots it trusts."""

    name: str
    key: SigningKey
    certificate: bytes = field(repr=False)
    authority: bytes = field(repr=False)

    def __post_init__(self) -> None:
        leaf = _load_certificates(self.certificate)[0]
        _load_certificates(self.authority)
        if peer_name(leaf) != self.name:
            raise ParameterError(f"the certificate is for {peer_name(leaf)}, not for {self.name}")
        if peer_key(leaf) != self.key.public:
            raise ParameterError(f"the certificate of {self.name} belongs to another key")

    @property
    def thumbprint(self) -> str:
        return self.key.thumbprint

    @property
    def expires(self) -> datetime.datetime:
        return _load_certificates(self.certificate)[0].not_valid_after_utc

    def save(self, directory: Path) -> None:
        """Write key, certificate and authority, all readable by the owner alone."""
        _private_directory(directory)
        _write_private(directory / KEY_FILE, self.key.to_pem())
        _write_private(directory / CERTIFICATE_FILE, self.certificate)
        _write_private(directory / AUTHORITY_FILE, self.authority)

    @classmethod
    def load(cls, directory: Path | str) -> Identity:
        """Raises ``ParameterError`` for a missing file, or a key that does not fit its certificate."""
        directory = Path(directory)
        key = SigningKey.from_pem(_read(directory / KEY_FILE))
        certificate = _read(directory / CERTIFICATE_FILE)
        name = peer_name(_load_certificates(certificate)[0])
        return cls(name, key, certificate, _read(directory / AUTHORITY_FILE))


@dataclass(frozen=True)
class CertificateAuthority:
    """A private certificate authority: enough for one data space, its demos and tests."""

    name: str
    key: SigningKey
    certificate: bytes = field(repr=False)

    @classmethod
    def create(cls, name: str) -> CertificateAuthority:
        key = SigningKey.generate()
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = _key_usage(certificates=True)
        certificate = (
            _builder(subject, subject, key.public, AUTHORITY_DAYS)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(_public(key.public)), critical=False)
            .sign(key.private, None)
        )
        return cls(name, key, certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, days: int = 365, *, key: SigningKey | None = None) -> Identity:
        """A new identity for one DNS name. key: an existing key to certify, for renewal; fresh by default."""
        if not _DNS_NAME.match(name):
            raise ParameterError(f"an identity's name is a DNS name in lower case, not {name!r}")
        if not 1 <= days <= AUTHORITY_DAYS:
            raise ParameterError(f"a certificate is valid for 1 to {AUTHORITY_DAYS} days, not {days}")
        key = key or SigningKey.generate()
        issuer = x509.load_pem_x509_certificate(self.certificate)
        certificate = (
            _builder(x509.Name([]), issuer.subject, key.public, days)
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=True)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(certificates=False), critical=True)
            .add_extension(
                x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]),
                critical=False,
            )
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(_public(key.public)), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(_public(self.key.public)), critical=False
            )
            .sign(self.key.private, None)
        )
        return Identity(name, key, certificate.public_bytes(serialization.Encoding.PEM), self.certificate)

    def save(self, directory: Path) -> None:
        _private_directory(directory)
        _write_private(directory / KEY_FILE, self.key.to_pem())
        _write_private(directory / AUTHORITY_FILE, self.certificate)

    @classmethod
    def load(cls, directory: Path) -> CertificateAuthority:
        """Raises ``ParameterError`` for a missing file, or a key that does not fit its certificate."""
        key, pem = SigningKey.from_pem(_read(directory / KEY_FILE)), _read(directory / AUTHORITY_FILE)
        certificate = _load_certificates(pem)[0]
        if peer_key(certificate) != key.public:
            raise ParameterError("the authority's certificate belongs to another key")
        common = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return cls(str(common[0].value) if common else "", key, pem)


def peer_name(certificate: x509.Certificate) -> str:
    """The one DNS name of a certificate. Raises ``VerificationError`` for none, several, or other kinds."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound as error:
        raise VerificationError("the certificate has no subject alternative name") from error
    entries = list(names)
    if len(entries) != 1 or not isinstance(entries[0], x509.DNSName):
        raise VerificationError("the certificate must have exactly one subject alternative name, a DNS name")
    return entries[0].value


def peer_key(certificate: x509.Certificate) -> VerifyKey:
    """The Ed25519 key of a certificate. Raises ``VerificationError`` for other kinds."""
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey):
        raise VerificationError("the certificate's key is not an Ed25519 key")
    return VerifyKey(key.public_bytes_raw())


def verify_certificate(
    pem: bytes, authority: bytes, *, at: datetime.datetime | None = None
) -> x509.Certificate:
    """The leaf of ``pem`` if a root in ``authority`` signed it directly and it is in date.

    For certificates that arrive by file; a TLS connection has its own, complete check.
    Raises ``VerificationError``.
    """
    leaf = _load_certificates(pem)[0]
    at = at or datetime.datetime.now(datetime.UTC)
    if not leaf.not_valid_before_utc <= at <= leaf.not_valid_after_utc:
        raise VerificationError("the certificate is not valid at this time")
    for root in _load_certificates(authority):
        try:
            leaf.verify_directly_issued_by(root)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return leaf
    raise VerificationError("the certificate is not signed by a trusted authority")


def _builder(subject: x509.Name, issuer: x509.Name, key: VerifyKey, days: int) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC).replace(microsecond=0)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(_public(key))
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + datetime.timedelta(days=days))
    )


def _key_usage(*, certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not certificates,
        key_cert_sign=certificates,
        crl_sign=certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _public(key: VerifyKey) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(key.raw)


def _load_certificates(pem: bytes) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise VerificationError("the file holds no certificate in PEM") from error


def _private_directory(directory: Path) -> None:
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)


def _write_private(path: Path, data: bytes) -> None:
    """Write a file that was never readable by others, whole or not at all."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ParameterError(f"cannot read {path}: {error.strerror}") from error
