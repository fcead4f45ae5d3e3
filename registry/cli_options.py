"""Options by which a command of `pool-schema` finds a registry and says who calls."""

from pathlib import Path
from typing import Annotated

import typer

from registry.remote import Remote
from registry.terminal import fail

__all__ = ["Authority", "Certificate", "Key", "TokenFile", "Url", "remote", "required"]

Url = Annotated[
    str | None, typer.Option("--url", help="Address of a registry.", envvar="POOL_REGISTRY_URL", show_envvar=True)
]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="File with the account's token.", envvar="POOL_TOKEN_FILE")
]
Authority = Annotated[
    Path | None,
    typer.Option("--authority", help="The registry's certificate authority, PEM.", envvar="POOL_AUTHORITY"),
]
Certificate = Annotated[
    Path | None, typer.Option("--certificate", help="Client certificate instead of a token, PEM; with --key.")
]
Key = Annotated[Path | None, typer.Option("--key", help="Key of the client certificate, PEM.")]


def remote(
    url: str | None,
    token_file: Path | None,
    authority: Path | None,
    certificate: Path | None = None,
    key: Path | None = None,
) -> Remote | None:
    """Give the registry that the options name; None without --url."""
    if url is None:
        return None
    if (certificate is None) is not (key is None):
        fail("got one of --certificate and --key; expected both, or neither")
    try:
        token = token_file.read_text(encoding="utf-8").strip() if token_file is not None else None
        pair = (certificate, key) if certificate is not None and key is not None else None
        return Remote(url, token=token, authority=authority, certificate=pair)
    except OSError as error:
        fail(f"{error.filename or token_file}: {error.strerror or type(error).__name__}")


def required(found: Remote | None) -> Remote:
    """Give the registry, or fail where none is named."""
    if found is None:
        fail("got no --url (or POOL_REGISTRY_URL); expected the address of a registry")
    return found
