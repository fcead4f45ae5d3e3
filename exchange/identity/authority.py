"""Certificate authority of the pool, and authentication of client certificates.

One self-signed root (P-256, ten years, path length 0) issues two kinds of certificates and nothing else:

    server   the gateway's listeners: DNS and IP names, EKU serverAuth alone
    client   a department's connectors: one URI name, EKU clientAuth alone, 30 days

    pool://<pool id>/department/<department id>/connector/<name>

The URI is the whole identity. The subject is the same neutral `CN=connector` for every client, so that no
department can obtain a certificate whose name means something elsewhere (a broker that maps CNs to users, say). Of
a certificate request only the public key is taken; names, extensions and attributes in it are not read. P-256, as
gRPC's TLS refuses Ed25519.

Issuing needs the root's key (`Authority`). Authenticating a certificate needs the root's public part alone
(`CertificateAuthenticator`), which is all that a gateway on another host has.
"""

import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from exchange.identity.keyfile import create_private, private_folder, read_private
from schemas.access import Actor, ActorKind, Role
from schemas.errors import InvalidError, Reason, RefusedError
from schemas.names import ConnectorId

__all__ = [
    "CLIENT_LIFETIME",
    "Authority",
    "CertificateAuthenticator",
    "IssuedCertificate",
    "ServerIdentity",
    "read_authority_certificate",
]

CLIENT_LIFETIME: Final = timedelta(days=30)
_SERVER_LIFETIME = timedelta(days=397)
_ROOT_LIFETIME = timedelta(days=3652)
_BACKDATED = timedelta(minutes=5)  # a department's clock may be slow
_ID = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,78}[A-Za-z0-9])?")
_URI = re.compile(r"pool://(?P<pool>[^/]+)/department/(?P<department>[^/]+)/connector/(?P<connector>[^/]+)")
_CURVE = ec.SECP256R1


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedCertificate:
    """A client certificate as it was issued.

    Attributes:
        certificate: PEM.
        serial: number, lower-case hexadecimal.
        not_before: validity begins, aware.
        not_after: validity ends, aware.
    """

    certificate: bytes
    serial: str
    not_before: datetime
    not_after: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerIdentity:
    """A listener's certificate and private key, both PEM, and when it ends."""

    certificate: bytes
    key: bytes
    not_after: datetime


class Authority:
    """Issues certificates in one pool's name."""

    def __init__(self, pool_id: str, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.pool_id = pool_id
        self._certificate = certificate
        self._key = key

    @classmethod
    def create(cls, folder: Path, pool_id: str, now: datetime) -> "Authority":
        """Create a new root in *folder*: `authority.crt`, and `authority.key` (0600).

        Raises:
            InvalidError: NAME_INVALID, a pool id that does not fit a URI; ALREADY_EXISTS.
        """
        _check_id(pool_id, "pool id")
        key = ec.generate_private_key(_CURVE())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Data Exchange Pool {pool_id}"[:64])])
        certificate = (
            x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + _ROOT_LIFETIME)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(sign_certificates=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        private_folder(folder)
        if not create_private(folder / "authority.key", _private_pem(key)):
            raise InvalidError(Reason.ALREADY_EXISTS, f"{folder} holds an authority already; it is never replaced")
        (folder / "authority.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        return cls(pool_id, certificate, key)

    @classmethod
    def load(cls, folder: Path, pool_id: str) -> "Authority":
        """Read what `create` made.

        Raises:
            InvalidError: CONFIG_INVALID, when a file is missing, open to others, or the two do not belong together.
        """
        try:
            certificate = x509.load_pem_x509_certificate((folder / "authority.crt").read_bytes())
            key = serialization.load_pem_private_key(read_private(folder / "authority.key"), None)
        except (OSError, ValueError) as error:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{folder} holds no usable certificate authority; restore it from the backup"
            ) from error
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{folder}: authority.key and authority.crt do not belong together"
            )
        return cls(pool_id, certificate, key)

    @property
    def certificate(self) -> bytes:
        """Return the root certificate, PEM."""
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def server(self, names: Sequence[str], now: datetime, lifetime: timedelta = _SERVER_LIFETIME) -> ServerIdentity:
        """Return a new key and certificate for a listener.

        Args:
            names: DNS names and IP addresses under which it is called, at least one.
            now: aware.
            lifetime: how long it is valid.

        Raises:
            InvalidError: NAME_INVALID.
        """
        key = ec.generate_private_key(_CURVE())
        alternatives = x509.SubjectAlternativeName([_server_name(name) for name in names])
        if not names:
            raise InvalidError(Reason.NAME_INVALID, "got no name for the listener; expected a DNS name or an address")
        certificate = self._issue(
            "pool", key.public_key(), alternatives, ExtendedKeyUsageOID.SERVER_AUTH, now, now + lifetime
        )
        return ServerIdentity(
            certificate=certificate.public_bytes(serialization.Encoding.PEM),
            key=_private_pem(key),
            not_after=certificate.not_valid_after_utc,
        )

    def client(self, request: bytes, *, department: str, connector: str, now: datetime) -> IssuedCertificate:
        """Issue a connector's certificate for the public key of a certificate request.

        Args:
            request: PKCS#10, DER. Its signature proves that the private key is held; nothing but the public key is
                read from it.
            department: internal id.
            connector: name within the department.
            now: aware.

        Raises:
            InvalidError: REQUEST_INVALID, for no request, another key than P-256, or a signature that does not fit;
                NAME_INVALID.
        """
        _check_id(department, "department id")
        uri = f"pool://{self.pool_id}/department/{department}/connector/{ConnectorId(connector)}"
        certificate = self._issue(
            "connector",
            _requested_key(request),
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]),
            ExtendedKeyUsageOID.CLIENT_AUTH,
            now,
            now + CLIENT_LIFETIME,
        )
        return IssuedCertificate(
            certificate=certificate.public_bytes(serialization.Encoding.PEM),
            serial=format(certificate.serial_number, "x"),
            not_before=certificate.not_valid_before_utc,
            not_after=certificate.not_valid_after_utc,
        )

    def _issue(
        self,
        name: str,
        key: ec.EllipticCurvePublicKey,
        alternatives: x509.SubjectAlternativeName,
        usage: x509.ObjectIdentifier,
        now: datetime,
        not_after: datetime,
    ) -> x509.Certificate:
        root = self._certificate
        return (
            x509.CertificateBuilder(
                root.subject,
                x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
                key,
                x509.random_serial_number(),
            )
            .not_valid_before(max(now - _BACKDATED, root.not_valid_before_utc))
            .not_valid_after(min(not_after, root.not_valid_after_utc))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(sign_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
            .add_extension(alternatives, critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(
                    root.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
                ),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )


def read_authority_certificate(folder: Path) -> bytes:
    """Return the root certificate, PEM: all that a host has that authenticates certificates and issues none.

    Raises:
        InvalidError: CONFIG_INVALID, it is missing or no certificate.
    """
    try:
        content = (folder / "authority.crt").read_bytes()
        x509.load_pem_x509_certificate(content)
    except (OSError, ValueError) as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{folder} holds no usable authority.crt; restore it from the backup"
        ) from error
    return content


class CertificateAuthenticator:
    """Authenticates client certificates. TLS has checked them before; this does not rely on that.

    Args:
        pool_id: of this pool; a certificate of another pool is refused.
        authority: the root certificate, PEM.
    """

    def __init__(self, pool_id: str, authority: bytes) -> None:
        self._pool_id = pool_id
        self._root = x509.load_pem_x509_certificate(authority)
        # Signature and names of a certificate never change; only the time does. Checking them costs 150 µs.
        self._verify_cached = lru_cache(maxsize=8_192)(self._verify)

    def authenticate(self, certificate: bytes, now: datetime) -> Actor:
        """Return the connector that holds a certificate (PEM or DER).

        Raises:
            RefusedError: NO_IDENTITY, not one of this pool's client certificates; CERTIFICATE_EXPIRED, outside its
                validity.
        """
        actor, not_before, not_after = self._verify_cached(certificate)
        if now >= not_after:
            raise RefusedError(
                Reason.CERTIFICATE_EXPIRED,
                f"the certificate ended at {not_after.isoformat()}; enrol again with a token from your administrator",
            )
        if now < not_before:
            raise RefusedError(
                Reason.CERTIFICATE_EXPIRED,
                f"the certificate begins at {not_before.isoformat()}; the pool's clock is behind",
            )
        return actor

    def _verify(self, certificate: bytes) -> tuple[Actor, datetime, datetime]:
        pem = certificate.lstrip().startswith(b"-----BEGIN")
        try:
            leaf = x509.load_pem_x509_certificate(certificate) if pem else x509.load_der_x509_certificate(certificate)
            leaf.verify_directly_issued_by(self._root)
            extensions = leaf.extensions
            constraints = extensions.get_extension_for_class(x509.BasicConstraints).value
            usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
            names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound, x509.DuplicateExtension) as error:
            raise _not_of_this_pool() from error
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        match = _URI.fullmatch(uris[0]) if len(uris) == len(names) == 1 else None
        if (
            constraints.ca
            or list(usages) != [ExtendedKeyUsageOID.CLIENT_AUTH]
            or match is None
            or match["pool"] != self._pool_id
        ):
            raise _not_of_this_pool()
        actor = Actor(
            kind=ActorKind.MACHINE,
            id=match["connector"],
            department=match["department"],
            role=Role.CONNECTOR,
            certificate=format(leaf.serial_number, "x"),
        )
        return actor, leaf.not_valid_before_utc, leaf.not_valid_after_utc


def _requested_key(request: bytes) -> ec.EllipticCurvePublicKey:
    try:
        csr = x509.load_der_x509_csr(request)
        key = csr.public_key()
        proven = csr.is_signature_valid
    except Exception as error:  # hostile bytes: the parser's own exceptions are not a closed list
        raise InvalidError(
            Reason.REQUEST_INVALID, "got no readable certificate request; expected PKCS#10 in DER with a P-256 key"
        ) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVE):
        raise InvalidError(Reason.REQUEST_INVALID, "got a certificate request for another kind of key; expected P-256")
    if not proven:
        raise InvalidError(
            Reason.REQUEST_INVALID, "the certificate request's signature does not fit its key; make a new request"
        )
    return key


def _server_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        pass
    try:
        return x509.DNSName(name)
    except ValueError as error:
        raise InvalidError(
            Reason.NAME_INVALID, "got a listener's name that is neither ASCII DNS name nor IP address"
        ) from error


def _key_usage(*, sign_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not sign_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=sign_certificates,
        crl_sign=sign_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _check_id(text: str, what: str) -> None:
    if not _ID.fullmatch(text):
        raise InvalidError(
            Reason.NAME_INVALID, f"got a {what} that does not fit a URI; expected letters, digits, '.', '_' and '-'"
        )


def _not_of_this_pool() -> RefusedError:
    return RefusedError(
        Reason.NO_IDENTITY, "the certificate is no client certificate of this pool; enrol with `pool-connect enrol`"
    )
