"""Signed notes and checkpoints, byte for byte as C2SP writes them (signed-note, tlog-checkpoint).

    pool.example/audit                                       origin: which log
    20852163                                                 size: leaves in the tree
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=             root (RFC 6962)

    — pool.example/audit Az3grlgtzPICa5OS8npVmf1Myq/5IZn…    key's name, base64(key id ‖ signature)

Nothing of the format is our own, so that software of others can check it. Signatures of keys that the reader does
not know are skipped: that is how witnesses and a successor key add theirs. If a known key's signature does not
verify, the note is refused.
"""

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from typing_extensions import override

from schemas.audit import Checkpoint
from schemas.errors import InvalidError, Reason
from schemas.merkle import HASH_SIZE

__all__ = ["FileSigner", "NoteKey", "NoteSigner", "checkpoint_text", "open_note", "parse_checkpoint", "sign_note"]

_ED25519 = 0x01  # signed-note, signature types
_MAX_SIGNATURES = 100
_MAX_NOTE = 1_000_000  # characters
_PREFIX = "— "


class NoteSigner(Protocol):
    """Signs notes under one name. `FileSigner` is the adapter with a key file; a hardware module would be another."""

    key: "NoteKey"
    """The verification key of the signatures."""

    def sign(self, text: bytes) -> bytes:
        """Return the 64-byte Ed25519 signature of a note's text."""
        ...


@dataclass(frozen=True, slots=True)
class NoteKey:
    """A verification key: name and 32-byte Ed25519 public key.

    Its text form is `<name>+<key id, 8 hexadecimal digits>+<base64(0x01 ‖ public key)>`, which Go's sumdb tools and
    others read.
    """

    name: str
    public: bytes

    def __post_init__(self) -> None:
        if not self.name or "+" in self.name or any(c.isspace() for c in self.name) or len(self.public) != 32:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"got the note key name {self.name[:80]!r} and {len(self.public)} bytes; expected a name without "
                "spaces and '+', such as 'pool.example/audit', and an Ed25519 public key of 32 bytes",
            )

    @property
    def id(self) -> bytes:
        """Key id: SHA-256(name ‖ newline ‖ 0x01 ‖ public key), its first 4 bytes (signed-note, Ed25519)."""
        return hashlib.sha256(self.name.encode() + b"\n" + bytes((_ED25519,)) + self.public).digest()[:4]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form.

        Raises:
            InvalidError: CONFIG_INVALID, another form, another algorithm than Ed25519, or a key id that does not fit.
        """
        try:
            name, key_id, encoded = text.strip().split("+", 2)
            raw = base64.b64decode(encoded, validate=True)
        except ValueError as error:
            raise _bad_key() from error
        if not raw or raw[0] != _ED25519:
            raise _bad_key()
        key = cls(name, raw[1:])
        if key.id.hex() != key_id:
            raise _bad_key()
        return key

    def __str__(self) -> str:
        encoded = base64.b64encode(bytes((_ED25519,)) + self.public).decode()
        return f"{self.name}+{self.id.hex()}+{encoded}"


class FileSigner(NoteSigner):
    """Signs with an Ed25519 key in a PEM file (PKCS #8) of mode 0600, which belongs to the sequencer's user alone."""

    def __init__(self, name: str, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.key = NoteKey(name, private.public_key().public_bytes_raw())

    @classmethod
    def create(cls, path: Path, name: str) -> Self:
        """Generate a key and write it; an existing file is never overwritten.

        Raises:
            InvalidError: CONFIG_INVALID, the file exists.
        """
        private = Ed25519PrivateKey.generate()
        pem = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError as error:
            raise InvalidError(Reason.CONFIG_INVALID, f"{path} exists; a signing key is never overwritten") from error
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        return cls(name, private)

    @classmethod
    def load(cls, path: Path, name: str) -> Self:
        """Read a key.

        Raises:
            InvalidError: CONFIG_INVALID, the file is missing, open to others than its owner, or no Ed25519 key.
        """
        try:
            mode = path.stat().st_mode & 0o077
            private = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except FileNotFoundError as error:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{path} is missing; restore it from the backup. The log cannot go on under another key: what was "
                "signed with this one would contradict a second log",
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{path} holds no readable signing key ({type(error).__name__})"
            ) from error
        if mode:
            raise InvalidError(Reason.CONFIG_INVALID, f"{path} is open to others than its owner; set its mode to 0600")
        if not isinstance(private, Ed25519PrivateKey):
            raise InvalidError(Reason.CONFIG_INVALID, f"{path} holds another key than an Ed25519 private key")
        return cls(name, private)

    @override
    def sign(self, text: bytes) -> bytes:
        return self._private.sign(text)


def sign_note(text: str, signers: Sequence[NoteSigner]) -> str:
    """Make a note of *text*, which ends in a newline, with a signature of each signer.

    Raises:
        InvalidError: REQUEST_INVALID, for text that is no note's: without a final newline, or with control characters.
    """
    if not text.endswith("\n") or any(ord(c) < 0x20 and c != "\n" for c in text):
        raise InvalidError(
            Reason.REQUEST_INVALID,
            "got a text that cannot be signed as a note; expected lines without control characters",
        )
    lines = []
    for signer in signers:
        signature = base64.b64encode(signer.key.id + signer.sign(text.encode())).decode()
        lines.append(f"{_PREFIX}{signer.key.name} {signature}\n")
    return text + "\n" + "".join(lines)


def open_note(note: str, keys: Sequence[NoteKey]) -> str:
    """Return the text of a note that at least one of the keys has signed.

    Raises:
        InvalidError: SIGNATURE_INVALID, when no known key has signed it, when the signature of a known key does not
            verify, or when it is no note.
    """
    text, _, below = note.rpartition("\n\n")
    if not text or len(note) > _MAX_NOTE or not below.endswith("\n"):
        raise _no_note("it has no text and signatures with an empty line between them")
    text += "\n"
    lines = below[:-1].split("\n")
    if len(lines) > _MAX_SIGNATURES or any(ord(c) < 0x20 and c != "\n" for c in note):
        raise _no_note(f"it holds control characters, or more than {_MAX_SIGNATURES} signatures")
    keys_by_id = {(key.name, key.id): key for key in keys}
    verified = False
    for line in lines:
        name, raw = _signature(line)
        key = keys_by_id.get((name, raw[:4]))
        if key is None:
            continue
        try:
            Ed25519PublicKey.from_public_bytes(key.public).verify(raw[4:], text.encode())
        except (InvalidSignature, ValueError) as error:
            raise _no_note(f"the signature of {name!r} does not verify") from error
        verified = True
    if not verified:
        raise _no_note("no known key has signed it; is it another log's, or is the verification key an old one?")
    return text


def checkpoint_text(checkpoint: Checkpoint) -> str:
    """Return the text of a checkpoint: origin, size, root (tlog-checkpoint). No extension lines."""
    return f"{checkpoint.origin}\n{checkpoint.size}\n{base64.b64encode(checkpoint.root).decode()}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Read the text of a checkpoint, which `open_note` gave. Extension lines are skipped.

    Raises:
        InvalidError: REQUEST_INVALID, for any other form.
    """
    lines = text.split("\n")
    try:
        origin, size, root = lines[0], lines[1], base64.b64decode(lines[2], validate=True)
    except (IndexError, ValueError) as error:
        raise _no_checkpoint() from error
    exact = len(size) < 20 and size.isascii() and size.isdigit() and str(int(size)) == size
    if not origin or not exact or len(root) != HASH_SIZE or lines[-1] or not all(lines[:-1]):
        raise _no_checkpoint()
    return Checkpoint(origin=origin, size=int(size), root=root)


def _signature(line: str) -> tuple[str, bytes]:
    if not line.startswith(_PREFIX):
        raise _no_note("a signature line does not begin with an em dash and a space")
    name, _, encoded = line[len(_PREFIX) :].partition(" ")
    try:
        raw = base64.b64decode(encoded, validate=True)
    except ValueError as error:
        raise _no_note("a signature is not base64") from error
    if not name or len(raw) < 5:
        raise _no_note("a signature line has no name or no signature")
    return name, raw


def _no_note(why: str) -> InvalidError:
    return InvalidError(Reason.SIGNATURE_INVALID, f"got a note that proves nothing: {why}")


def _no_checkpoint() -> InvalidError:
    return InvalidError(
        Reason.REQUEST_INVALID,
        "got a note that is no checkpoint; expected the lines origin, size in decimal, and base64 of a 32-byte root",
    )


def _bad_key() -> InvalidError:
    return InvalidError(
        Reason.CONFIG_INVALID,
        "got a text that is no verification key; expected <name>+<key id>+<base64 of 0x01 and an Ed25519 public key>, "
        "as the pool prints it",
    )
