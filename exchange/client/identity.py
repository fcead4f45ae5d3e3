"""Identity of a connector on its own machine: certificate and keys in a folder of mode 0700, its keys 0600.

tls.crt, tls.key   certificate and P-256 key for mutual TLS
signing.key        Ed25519, signs batches; it stays when the certificate is renewed
authority.crt      the pool's certificate authority
identity.json      pool, department, connector, and the gateway's address
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from schemas.errors import InvalidError, Reason

__all__ = ["Identity"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """The identity of a connector, as `pool-connect enrol` stores it.

    Attributes:
        pool_id, department, connector: its name within the pool.
        gateway: host:port of the pool's mutual TLS listener.
        certificate, key, authority: PEM, for TLS (P-256).
        signing_key: Ed25519, signs batches.
    """

    pool_id: str
    department: str
    connector: str
    gateway: str
    certificate: bytes
    key: bytes
    authority: bytes
    signing_key: ed25519.Ed25519PrivateKey

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read the folder.

        Raises:
            InvalidError: CONFIG_INVALID, when a file is missing, unreadable or open to others.
        """
        try:
            facts = json.loads((folder / "identity.json").read_text())
            for secret in ("tls.key", "signing.key"):
                if (folder / secret).stat().st_mode & 0o077:
                    raise InvalidError(
                        Reason.CONFIG_INVALID, f"{folder / secret} is open to others; expected mode 0600: chmod 600 it"
                    )
            signing = serialization.load_pem_private_key((folder / "signing.key").read_bytes(), None)
            if not isinstance(signing, ed25519.Ed25519PrivateKey):
                raise InvalidError(Reason.CONFIG_INVALID, f"{folder / 'signing.key'} holds no Ed25519 key; enrol again")
            return cls(
                pool_id=facts["pool_id"],
                department=facts["department"],
                connector=facts["connector"],
                gateway=facts["gateway"],
                certificate=(folder / "tls.crt").read_bytes(),
                key=(folder / "tls.key").read_bytes(),
                authority=(folder / "authority.crt").read_bytes(),
                signing_key=signing,
            )
        except (OSError, KeyError, ValueError) as error:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{folder} holds no usable identity ({type(error).__name__}); enrol with `pool-connect enrol`",
            ) from error

    def save(self, folder: Path) -> None:
        """Write the folder, 0700, its keys 0600; each file is replaced atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o700)
        facts = {name: getattr(self, name) for name in ("pool_id", "department", "connector", "gateway")}
        signing = self.signing_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        files = {
            "tls.key": self.key,
            "signing.key": signing,
            "tls.crt": self.certificate,
            "authority.crt": self.authority,
            "identity.json": json.dumps(facts, indent=2).encode() + b"\n",
        }
        for name, content in files.items():
            part = folder / f".{name}.part"
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.rename(folder / name)
