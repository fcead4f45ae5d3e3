"""Secret files: mode 0600, written atomically, refused when open to others."""

import contextlib
import os
import secrets
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from schemas.errors import InvalidError, Reason, UnavailableError

__all__ = [
    "create_ed25519",
    "create_private",
    "destroy_private",
    "private_folder",
    "read_ed25519",
    "read_private",
    "replace_private",
]

_OPEN_TO_OTHERS = 0o077


def read_private(path: Path) -> bytes:
    """Read a secret file.

    Raises:
        InvalidError: CONFIG_INVALID, when it is missing, unreadable, no plain file or open to others.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError as error:
        raise InvalidError(
            Reason.CONFIG_INVALID, f"{path} is missing; restore it from the backup, it cannot be made again"
        ) from error
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{path} cannot be read: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        # Of the open file, not of the path: no other file can be put there in between.
        if os.fstat(descriptor).st_mode & _OPEN_TO_OTHERS:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{path} is open to others; expected mode 0600: chmod 600 it, and renew the key"
            )
        return file.read()


def create_private(path: Path, content: bytes) -> bool:
    """Write a secret file that is not there yet; return whether this call made it.

    Of several processes that try at once one wins, and all then read the same content.
    """
    temporary = _write_temporary(path, content)
    try:
        os.link(temporary, path)  # unlike a rename it never replaces
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    _sync(path.parent)
    return True


def replace_private(path: Path, content: bytes) -> None:
    """Write a file of mode 0600, in place of the one that is there, if any; it is durable when this returns."""
    _write_temporary(path, content).rename(path)
    _sync(path.parent)


def destroy_private(path: Path) -> None:
    """Overwrite a file with random bytes and remove it; durable when this returns. A file that is missing is no error.

    Where the file system does not write in place (copy on write, flash), the old bytes stay until they are reused.

    Raises:
        UnavailableError: DISK_FULL, the file system refuses.
    """
    try:
        with path.open("r+b") as file:
            file.write(secrets.token_bytes(path.stat().st_size))
            file.flush()
            os.fsync(file.fileno())
        path.unlink()
        _sync(path.parent)
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnavailableError(
            Reason.DISK_FULL, f"{path} cannot be destroyed ({error.strerror}); do it again when the disk can be written"
        ) from error


def private_folder(path: Path) -> Path:
    """Create a folder of mode 0700 if there is none, and return it.

    Raises:
        InvalidError: CONFIG_INVALID, when it is there and open to others.
    """
    with contextlib.suppress(FileExistsError):
        path.mkdir(mode=0o700, parents=True)
    if path.stat().st_mode & _OPEN_TO_OTHERS:
        raise InvalidError(Reason.CONFIG_INVALID, f"{path} is open to others; expected mode 0700: chmod 700 it")
    return path


def create_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """Generate a signing key of the pool's own, and write it.

    Raises:
        InvalidError: ALREADY_EXISTS; a key is never overwritten.
    """
    key = ed25519.Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    if not create_private(path, pem):
        raise InvalidError(Reason.ALREADY_EXISTS, f"{path} exists; a key is never overwritten")
    return key


def read_ed25519(path: Path) -> ed25519.Ed25519PrivateKey:
    """Read a signing key of the pool's own; one that is lost is not made again.

    Raises:
        InvalidError: CONFIG_INVALID, when the file is missing, open to others or holds another kind of key.
    """
    try:
        key = serialization.load_pem_private_key(read_private(path), None)
    except ValueError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{path} holds no private key in PEM") from error
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise InvalidError(Reason.CONFIG_INVALID, f"{path} holds another kind of key; expected Ed25519")
    return key


def _write_temporary(path: Path, content: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)
    return temporary


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
