"""Enrolment of connectors: invitation, certificate, renewal, revocation.

    invite   a one-time token, valid for 7 days: proposed by one person, confirmed by an officer of the department
    enrol    token + certificate request + public signing key → a certificate of 30 days
    renew    from day 20 of a certificate that is still valid → the next one; the signing key stays
    revoke   a department's, a connector's or one certificate; the enforcer asks at every act, so it holds at once

The token ends unused when an account that proposed or confirmed it is revoked: who left the office may still have it.
A token that names no connector enrols only a name that the department has not used. Taking an existing name over (its
machine was off for a month, or lost) needs a token that names it: the old certificates are revoked, and the new
signing key is the connector's from then on.

Everything is written in the caller's transaction, before the certificate is handed out: a certificate that the pool
does not know counts as revoked.
"""

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ed25519

from exchange.identity.authority import Authority, IssuedCertificate
from exchange.identity.store import Certificate, IdentityStore, OneTimeToken, SigningKey
from registry.database.damaged_row import DamagedRow
from registry.database.unit_of_work import Reader, UnitOfWork
from schemas.access import Actor, ActorKind, Role
from schemas.errors import ConflictError, InvalidError, Reason, RefusedError
from schemas.invitation import Invitation
from schemas.names import ConnectorId

__all__ = ["RENEW_FROM", "TOKEN_LIFETIME", "CertificateStatus", "Connectors", "EnrolledConnector", "Enrolment"]

TOKEN_LIFETIME = timedelta(days=7)
RENEW_FROM = timedelta(days=20)  # after the certificate's beginning


class CertificateStatus(StrEnum):
    """Status of a certificate in the pool now; its validity in time is read from the certificate itself."""

    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolledConnector:
    """The answer to an enrolment or a renewal.

    Attributes:
        certificate: PEM, for mutual TLS.
        authority: the pool's root certificate, PEM.
        pool_id, department, connector: the identity that the certificate carries.
        serial: of the certificate, lower-case hexadecimal.
        not_after: end of the certificate, aware.
    """

    certificate: bytes
    authority: bytes
    pool_id: str
    department: str
    connector: str
    serial: str
    not_after: datetime


class Connectors:
    """Reads of connectors: certificates for the enforcer, signing keys for checks of signatures."""

    def __init__(self, store: IdentityStore) -> None:
        self._store = store

    def status(self, reader: Reader, serial: str) -> CertificateStatus:
        """Return whether a certificate may be used. One that is unknown may not."""
        return _status(self._store.certificate(reader, serial))

    def statuses(self, reader: Reader, serials: Collection[str]) -> dict[str, CertificateStatus]:
        """Return whether each of these certificates may be used."""
        found = self._store.certificates_by_serial(reader, serials)
        return {serial: _status(found.get(serial)) for serial in serials}

    def lock_status(self, work: UnitOfWork, serial: str) -> CertificateStatus:
        """Return whether a certificate may be used; a revocation waits until the transaction ends."""
        return _status(self._store.lock_certificate(work, serial))

    def signing_key(self, reader: Reader, department: str, connector: str, at: datetime) -> bytes:
        """Return the public Ed25519 key (32 bytes) that was a connector's at a time: since ≤ at < until.

        Raises:
            InvalidError: NOT_FOUND, when it had none.
        """
        for key in self._store.signing_keys(reader, department, connector):
            if key.since <= at and (key.until is None or at < key.until):
                return key.public_key
        raise InvalidError(Reason.NOT_FOUND, "the connector had no signing key at that time; it must be enrolled")

    def signing_keys(self, reader: Reader, department: str, connector: str) -> Sequence[SigningKey]:
        """Return all public keys that a connector ever had, oldest first."""
        return self._store.signing_keys(reader, department, connector)

    def certificates(self, reader: Reader, department: str, connector: str | None = None) -> Sequence[Certificate]:
        """Return the certificates issued to a department, oldest first."""
        return self._store.certificates(reader, department, connector)


def _status(certificate: Certificate | None) -> CertificateStatus:
    if certificate is None or certificate.revoked_at is not None:
        return CertificateStatus.REVOKED
    return CertificateStatus.ACTIVE


class Enrolment:
    """Issues and revokes certificates. The enforcer decides who may; this class checks what they ask for."""

    def __init__(self, authority: Authority, store: IdentityStore) -> None:
        self._authority = authority
        self._store = store

    def invite(
        self, work: UnitOfWork, *, department: str, connector: str | None, address: str, by: str, at: datetime
    ) -> str:
        """Create a one-time token; the line of text that it returns is shown once.

        Args:
            work: the open transaction.
            department: internal id.
            connector: the one name that it is for; None = any that the department has not used.
            address: host:port of the enrolment listener, for the department's machine.
            by: names of the accounts that proposed and confirmed it.
            at: aware.

        Raises:
            InvalidError: NAME_INVALID.
        """
        secret = secrets.token_urlsafe(32)
        self._store.add_invitation(
            work,
            OneTimeToken(
                digest=_digest(secret),
                department=department,
                connector=None if connector is None else ConnectorId(connector),
                invited_by=by,
                created_at=at,
                expires_at=at + TOKEN_LIFETIME,
            ),
        )
        return Invitation(address=address, authority=self._authority.certificate.decode(), secret=secret).encode()

    def invited_actor(self, work: UnitOfWork, *, secret: str, connector: str, at: datetime) -> Actor:
        """Return the actor that an invitation enrols: the enforcer decides on it before `enrol`.

        Raises:
            RefusedError: TOKEN_INVALID, unknown, used, expired, or for another connector.
            InvalidError: NAME_INVALID.
        """
        return self._read_invitation(work, secret, connector, at)[0]

    def enrol(
        self,
        work: UnitOfWork,
        *,
        secret: str,
        connector: str,
        request: bytes,
        signing_key: bytes,
        signing_proof: bytes,
        at: datetime,
    ) -> EnrolledConnector:
        """Issue a certificate for an invitation, which is then used.

        Args:
            work: the open transaction.
            secret: `Invitation.secret`.
            connector: name within the department.
            request: PKCS#10, DER, P-256.
            signing_key: Ed25519 public key, 32 bytes.
            signing_proof: its signature over *request*: proves that the sender has the key, for this request.
            at: aware.

        Raises:
            RefusedError: TOKEN_INVALID.
            InvalidError: NAME_INVALID, REQUEST_INVALID, SIGNATURE_INVALID.
            ConflictError: ALREADY_EXISTS, the name is in use and the token does not name it.
        """
        _check_proof(signing_key, signing_proof, request)
        # Read twice: first for the department, then under its lock, since another machine may have been faster.
        self._store.lock_department(work, self._read_invitation(work, secret, connector, at)[0].department)
        actor, token = self._read_invitation(work, secret, connector, at)
        if not self._store.use_invitation(work, token.digest, at):  # the person who invited was revoked at this moment
            raise _invalid_invitation()
        if token.connector is None and self._store.signing_keys(work, actor.department, actor.id):
            raise ConflictError(
                Reason.ALREADY_EXISTS,
                f"the department has a connector {actor.id!r}; to move it to another machine, ask for an invitation "
                "that names it",
            )
        issued = self._authority.client(request, department=actor.department, connector=actor.id, now=at)
        self._store.revoke_certificates(
            work, department=actor.department, connector=actor.id, at=at, by="pool", because="enrolled again"
        )
        self._store.set_signing_key(
            work, SigningKey(department=actor.department, connector=actor.id, public_key=signing_key, since=at)
        )
        return self._store_certificate(work, actor, issued)

    def renew(self, work: UnitOfWork, actor: Actor, request: bytes, at: datetime) -> EnrolledConnector:
        """Issue the next certificate to the holder of one that is still valid; both are valid until they end.

        After a lost answer, the old certificate may be renewed again.

        Raises:
            RefusedError: CERTIFICATE_REVOKED, CERTIFICATE_EXPIRED; TRANSITION_NOT_ALLOWED before day 20.
            InvalidError: REQUEST_INVALID.
        """
        self._store.lock_department(work, actor.department)
        current = self._store.certificate(work, actor.certificate)
        if (
            current is None
            or current.revoked_at is not None
            or (current.department, current.connector) != (actor.department, actor.id)
        ):
            raise RefusedError(Reason.CERTIFICATE_REVOKED, "the certificate has been revoked; enrol again with a token")
        if at >= current.not_after:
            raise RefusedError(Reason.CERTIFICATE_EXPIRED, "the certificate has ended; enrol again with a token")
        if at < current.not_before + RENEW_FROM:
            raise RefusedError(
                Reason.TRANSITION_NOT_ALLOWED,
                f"the certificate may be renewed from {(current.not_before + RENEW_FROM).isoformat()} on",
            )
        issued = self._authority.client(request, department=actor.department, connector=actor.id, now=at)
        return self._store_certificate(work, actor, issued)

    def revoke(
        self,
        work: UnitOfWork,
        *,
        department: str,
        connector: str | None = None,
        serial: str | None = None,
        at: datetime,
        by: str,
        because: str,
    ) -> Sequence[str]:
        """Revoke all certificates of a department, those of one connector, or one; return the serials newly revoked.

        Unused invitations of the department (or that name the connector) are withdrawn with them.

        Raises:
            InvalidError: REQUEST_INVALID, without a reason.
        """
        if not because.strip():
            raise InvalidError(Reason.REQUEST_INVALID, "got no reason; say why the certificates are revoked")
        self._store.lock_department(work, department)
        if serial is None:
            self._store.withdraw_invitations(work, department=department, connector=connector, at=at)
        return self._store.revoke_certificates(
            work, department=department, connector=connector, serial=serial, at=at, by=by, because=because
        )

    def certificates_page(
        self, reader: Reader, *, department: str | None, after: tuple[str, str, str], limit: int
    ) -> Sequence[Certificate | DamagedRow]:
        """Return certificates, revoked ones too; see `IdentityStore.certificates_page`."""
        return self._store.certificates_page(reader, department=department, after=after, limit=limit)

    def _read_invitation(
        self, work: UnitOfWork, secret: str, connector: str, at: datetime
    ) -> tuple[Actor, OneTimeToken]:
        name = ConnectorId(connector)
        token = self._store.invitation(work, _digest(secret))
        # One answer for all: a guesser learns nothing.
        if token is None or token.used_at is not None or at >= token.expires_at or token.connector not in {None, name}:
            raise _invalid_invitation()
        actor = Actor(kind=ActorKind.MACHINE, id=name, department=token.department, role=Role.CONNECTOR)
        return actor, token

    def _store_certificate(self, work: UnitOfWork, actor: Actor, issued: IssuedCertificate) -> EnrolledConnector:
        self._store.add_certificate(
            work,
            Certificate(
                serial=issued.serial,
                department=actor.department,
                connector=actor.id,
                not_before=issued.not_before,
                not_after=issued.not_after,
            ),
        )
        return EnrolledConnector(
            certificate=issued.certificate,
            authority=self._authority.certificate,
            pool_id=self._authority.pool_id,
            department=actor.department,
            connector=actor.id,
            serial=issued.serial,
            not_after=issued.not_after,
        )


def _invalid_invitation() -> RefusedError:
    return RefusedError(
        Reason.TOKEN_INVALID,
        "the invitation is unknown, used, withdrawn, older than 7 days or for another connector; ask for a new one",
    )


def _check_proof(signing_key: bytes, proof: bytes, request: bytes) -> None:
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(signing_key).verify(proof, request)
    except (ValueError, InvalidSignature) as error:
        raise InvalidError(
            Reason.SIGNATURE_INVALID,
            "the signing key's proof does not fit; expected an Ed25519 public key of 32 bytes, and its signature over "
            "the certificate request",
        ) from error


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
