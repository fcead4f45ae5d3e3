"""Authenticated encryption of a file of secrets: scrypt or HKDF, then ChaCha20-Poly1305 (RFC 7914, 5869, 8439).

    pool-sealed-1
    {"kdf": "scrypt", "n": 131072, "r": 8, "p": 1, "salt": "…", "nonce": "…"}
    ciphertext, and a tag of 16 bytes over it and both lines above

A passphrase is stretched by scrypt; a key file, which holds 32 random bytes, needs no stretching and goes through HKDF.
The salt is new for each file, so that no key and nonce are used twice. A file that somebody has changed is refused, and
so is one whose header asks for more memory than a passphrase needs: it would be a way to exhaust the machine.

The content is a set of named files, as JSON; the names are checked, so that none of them leaves the folder.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from exchange.identity.keyfile import create_private, read_private
from schemas.errors import InvalidError, Reason

__all__ = ["KEY_SIZE", "SealingKey", "new_key_file", "open_sealed", "seal"]

KEY_SIZE = 32
"""Bytes of a key file."""

_MAGIC = b"pool-sealed-1\n"
_N, _R, _P = 1 << 17, 8, 1  # 128 MB, some 0.4 s
_MAX_N = 1 << 20
_LEAST_PASSPHRASE = 12  # characters
_MAX_BYTES = 64 * 1024 * 1024
_NAME = re.compile(r"(?!.*(?:^|/)\.\.?(?:/|$))[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+){0,6}")


class SealingKey:
    """What opens a sealed file: a passphrase, or the 32 bytes of a key file.

    Raises:
        InvalidError: CONFIG_INVALID, a passphrase that is too short, or a key of another length.
    """

    def __init__(self, *, passphrase: str = "", key: bytes = b"") -> None:
        if bool(passphrase) == bool(key):
            raise InvalidError(Reason.CONFIG_INVALID, "expected either a passphrase or a key file, and not both")
        if passphrase and len(passphrase) < _LEAST_PASSPHRASE:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"got a passphrase of {len(passphrase)} characters; expected {_LEAST_PASSPHRASE} at least",
            )
        if key and len(key) != KEY_SIZE:
            raise InvalidError(Reason.CONFIG_INVALID, f"got a key of {len(key)} bytes; expected {KEY_SIZE}")
        self._passphrase = passphrase
        self._key = key

    @classmethod
    def read(cls, *, passphrase_file: Path | None, key_file: Path | None) -> "SealingKey":
        """Read one of two files of mode 0600: a passphrase in its first line, or a key as `new_key_file` writes it.

        Raises:
            InvalidError: CONFIG_INVALID, a file is open to others, or holds neither.
        """
        if (passphrase_file is None) == (key_file is None):
            raise InvalidError(Reason.CONFIG_INVALID, "expected either a passphrase file or a key file, and not both")
        if passphrase_file is not None:
            try:
                text = read_private(passphrase_file).decode().split("\n", 1)[0].rstrip("\r")
            except UnicodeDecodeError as error:
                raise InvalidError(Reason.CONFIG_INVALID, f"{passphrase_file} is not UTF-8 text") from error
            return cls(passphrase=text or " ")
        assert key_file is not None  # noqa: S101 - one of the two, as checked above
        if not key_file.exists():
            raise InvalidError(
                Reason.CONFIG_INVALID,
                f"{key_file} is missing; `pool backup new-key` makes one for new backups. What was sealed with "
                "this one needs a copy of it: another key does not open it",
            )
        try:
            return cls(key=base64.b64decode(read_private(key_file).strip(), validate=True) or b" ")
        except binascii.Error as error:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{key_file} holds no key; expected what `pool backup new-key` writes"
            ) from error

    def header(self) -> dict[str, Any]:
        """Return the header of a new file."""
        salt, nonce = os.urandom(16).hex(), os.urandom(12).hex()
        if self._passphrase:
            return {"kdf": "scrypt", "n": _N, "r": _R, "p": _P, "salt": salt, "nonce": nonce}
        return {"kdf": "hkdf-sha256", "salt": salt, "nonce": nonce}

    def cipher(self, header: Mapping[str, Any]) -> ChaCha20Poly1305:
        """Return the cipher of a file with this header.

        Raises:
            InvalidError: CONFIG_INVALID, it was sealed with the other kind of key, or asks for too much.
        """
        kind = "scrypt" if self._passphrase else "hkdf-sha256"
        if header["kdf"] != kind:
            given = "a passphrase" if self._passphrase else "a key file"
            raise InvalidError(Reason.CONFIG_INVALID, f"got {given}; the file was sealed with the other of the two")
        salt = bytes.fromhex(header["salt"])
        if not self._passphrase:
            return ChaCha20Poly1305(HKDF(hashes.SHA256(), KEY_SIZE, salt, b"exchange-pool/sealed/1").derive(self._key))
        n, r, p = int(header["n"]), int(header["r"]), int(header["p"])
        if not (1 < n <= _MAX_N and n & (n - 1) == 0 and r == _R and p == _P):
            raise InvalidError(Reason.CONFIG_INVALID, "the sealed file asks for more work than this program gives it")
        return ChaCha20Poly1305(Scrypt(salt, KEY_SIZE, n, r, p).derive(self._passphrase.encode()))


def new_key_file(path: Path) -> None:
    """Write a key file of mode 0600.

    Raises:
        InvalidError: ALREADY_EXISTS.
    """
    if not create_private(path, base64.b64encode(os.urandom(KEY_SIZE)) + b"\n"):
        raise InvalidError(Reason.ALREADY_EXISTS, f"{path} exists; a key is never overwritten")


def seal(files: Mapping[str, bytes], key: SealingKey) -> bytes:
    """Return named files as the content of one sealed file."""
    header = key.header()
    line = json.dumps(header, sort_keys=True).encode() + b"\n"
    content = json.dumps({name: base64.b64encode(data).decode() for name, data in sorted(files.items())}).encode()
    cipher = key.cipher(header)
    return _MAGIC + line + cipher.encrypt(bytes.fromhex(header["nonce"]), content, _MAGIC + line)


def open_sealed(path: Path, key: SealingKey) -> dict[str, bytes]:
    """Open a sealed file.

    Raises:
        InvalidError: CONFIG_INVALID, it cannot be read, is no sealed file, was changed, or the key is another one.
    """
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InvalidError(Reason.CONFIG_INVALID, f"{path} is larger than any file that this program seals")
        data = path.read_bytes()
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{path} cannot be read: {error.strerror}") from error
    no_file = InvalidError(Reason.CONFIG_INVALID, f"{path} is no sealed file of this program")
    if not data.startswith(_MAGIC):
        raise no_file
    end = data.find(b"\n", len(_MAGIC)) + 1
    try:
        header = json.loads(data[len(_MAGIC) : end])
        nonce, cipher = bytes.fromhex(header["nonce"]), key.cipher(header)
        content = json.loads(cipher.decrypt(nonce, data[end:], data[:end]))
        files = {str(name): base64.b64decode(text, validate=True) for name, text in content.items()}
    except InvalidTag as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{path} does not open: another passphrase or key sealed it, or it was changed"
        ) from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise no_file from error
    if not all(_NAME.fullmatch(name) for name in files):
        raise no_file
    return files
