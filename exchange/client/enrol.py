"""Enrolment and certificate renewal: both private keys are generated on the department's machine and never leave it."""

import json
import os
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import NameOID

from exchange.client.errors import from_rpc_error
from exchange.client.identity import Identity
from exchange.client.unreachable import explain_unreachable
from schemas.errors import ConflictError, Reason
from schemas.invitation import Invitation
from schemas.proto.pool.v1 import enrolment_pb2 as wire
from schemas.proto.pool.v1 import enrolment_pb2_grpc as stubs

__all__ = ["enrol", "renew"]

_TIMEOUT = 30.0  # seconds


def enrol(token: str, connector: str, folder: Path, *, replace: bool = False) -> Identity:
    """Redeem a one-time token, and store the new identity in *folder*.

    The token holds the pool's certificate authority: the pool is verified before the secret is sent.

    Args:
        token: of the invitation.
        connector: name of the connector.
        folder: of its identity. One that holds another connector's keys is refused before the token is used.
        replace: overwrite them all the same.

    Raises:
        RefusedError: TOKEN_INVALID.
        ConflictError: ALREADY_EXISTS, the name is in use and the token is not for it, or the folder holds another
            connector's keys.
        UnavailableError: the pool does not answer.
    """
    invitation = Invitation.decode(token)
    if not replace:
        _refuse_others(folder, connector, invitation.authority.encode())
    key, signing = ec.generate_private_key(ec.SECP256R1()), ed25519.Ed25519PrivateKey.generate()
    request = _request(key)
    message = wire.EnrolRequest(
        token=invitation.secret,
        connector=connector,
        certificate_request=request,
        signing_public_key=signing.public_key().public_bytes_raw(),
        signing_proof=signing.sign(request),
    )
    credentials = grpc.ssl_channel_credentials(invitation.authority.encode())
    with grpc.secure_channel(invitation.address, credentials) as channel:
        stub = stubs.EnrolmentStub(channel)  # type: ignore[no-untyped-call]  # generated
        reply = _call(stub.Enrol, message, invitation.address, invitation.authority.encode())
    identity = Identity(
        pool_id=reply.pool_id,
        department=reply.department,
        connector=connector,
        gateway=reply.gateway,
        certificate=reply.certificate_chain,
        key=_pem(key),
        authority=reply.authority,
        signing_key=signing,
    )
    identity.save(folder)
    return identity


def _refuse_others(folder: Path, connector: str, authority: bytes) -> None:
    """Refuse a folder that holds keys, unless they are those of the same connector at the same pool."""
    if not any((folder / name).exists() for name in ("signing.key", "tls.key", "identity.json")):
        return
    try:
        stored = json.loads((folder / "identity.json").read_text())["connector"]
        same = stored == connector and (folder / "authority.crt").read_bytes().strip() == authority.strip()
    except (OSError, ValueError, KeyError, TypeError):
        stored, same = "unknown", False
    if not same:
        raise ConflictError(
            Reason.ALREADY_EXISTS,
            f"{folder} holds the keys of the connector {stored}, of this pool or another; a key that is overwritten is "
            f"lost. Name another folder for {connector} under --identity, or pass --replace. The token was not used",
        )


def renew(identity: Identity, folder: Path) -> Identity:
    """Request the next certificate, authenticated by one that is still valid, and store it; the signing key stays.

    Raises:
        RefusedError: the certificate is revoked, or it is too early.
        UnavailableError: the pool does not answer.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    credentials = grpc.ssl_channel_credentials(identity.authority, identity.key, identity.certificate)
    with grpc.secure_channel(identity.gateway, credentials) as channel:
        stub = stubs.RenewalStub(channel)  # type: ignore[no-untyped-call]  # generated
        request = wire.RenewRequest(certificate_request=_request(key))
        reply = _call(stub.Renew, request, identity.gateway, identity.certificate)
    renewed = Identity(
        pool_id=identity.pool_id,
        department=identity.department,
        connector=identity.connector,
        gateway=reply.gateway or identity.gateway,
        certificate=reply.certificate_chain,
        key=_pem(key),
        authority=reply.authority,
        signing_key=identity.signing_key,
    )
    renewed.save(folder)
    return renewed


def _request(key: ec.EllipticCurvePrivateKey) -> bytes:
    """Build a certificate request; the pool reads only the public key from it."""
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "connector")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA256())
    return request.public_bytes(serialization.Encoding.DER)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _call(method: Any, message: Any, address: str, certificate: bytes) -> Any:
    """Call a method; *certificate* is one by which this machine's clock can be judged."""
    try:
        return method(message, timeout=_TIMEOUT)
    except grpc.RpcError as error:
        explain = partial(explain_unreachable, certificate, address, datetime.now(UTC), os.environ)
        raise from_rpc_error(error, explain) from error
