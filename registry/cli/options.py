"""Command-line options that commands of `pool-schema` share: the registry, the caller's credentials, the output file.

@with_registry                               replaces the first parameter by --url, --token-file, --authority,
def find(registry: RegistryAdminClient, …)   --certificate and --key; fails without --url
@with_optional_registry                      the same, and passes None without --url
"""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Concatenate, ParamSpec

import typer

from registry.cli.terminal import fail

if TYPE_CHECKING:
    from registry.client.admin import RegistryAdminClient

__all__ = ["Out", "required", "with_optional_registry", "with_registry"]

_P = ParamSpec("_P")

Out = Annotated[Path | None, typer.Option("--out", "-o", help="File to write; standard output if not given.")]

_OPTIONS = {
    "url": Annotated[
        str | None, typer.Option("--url", help="Address of a registry.", envvar="POOL_REGISTRY_URL", show_envvar=True)
    ],
    "token_file": Annotated[
        Path | None, typer.Option("--token-file", help="File with the account's token.", envvar="POOL_TOKEN_FILE")
    ],
    "authority": Annotated[
        Path | None,
        typer.Option("--authority", help="The registry's certificate authority, PEM.", envvar="POOL_AUTHORITY"),
    ],
    "certificate": Annotated[
        Path | None, typer.Option("--certificate", help="Client certificate instead of a token, PEM; with --key.")
    ],
    "key": Annotated[Path | None, typer.Option("--key", help="Key of the client certificate, PEM.")],
}


def with_registry(command: "Callable[Concatenate[RegistryAdminClient, _P], None]") -> Callable[..., None]:
    """Add the options of a registry to a command, and pass a client as its first argument; fail without --url."""
    return _with_options(command, required)


def with_optional_registry(
    command: "Callable[Concatenate[RegistryAdminClient | None, _P], None]",
) -> Callable[..., None]:
    """Add the options of a registry to a command, and pass a client as its first argument, or None without --url."""
    return _with_options(command, lambda client: client)


def required(client: "RegistryAdminClient | None") -> "RegistryAdminClient":
    """Return the client; fail if no registry was named."""
    if client is None:
        fail("got no --url (or POOL_REGISTRY_URL); expected the address of a registry")
    return client


def _with_options(
    command: Callable[..., None], check: "Callable[[RegistryAdminClient | None], Any]"
) -> Callable[..., None]:
    @wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        client = _client(**{name: options.pop(name) for name in _OPTIONS})
        command(check(client), *arguments, **options)

    signature = inspect.signature(command)
    own = list(signature.parameters.values())[1:]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in _OPTIONS.items()
    ]
    run.__signature__ = signature.replace(parameters=[*own, *shared])  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {each.name: each.annotation for each in (*own, *shared)}
    return run


def _client(
    url: str | None, token_file: Path | None, authority: Path | None, certificate: Path | None, key: Path | None
) -> "RegistryAdminClient | None":
    from registry.client.admin import RegistryAdminClient

    if url is None:
        return None
    if (certificate is None) is not (key is None):
        fail("got one of --certificate and --key; expected both, or neither")
    try:
        token = token_file.read_text(encoding="utf-8").strip() if token_file is not None else None
        pair = (certificate, key) if certificate is not None and key is not None else None
        return RegistryAdminClient(url, token=token, authority=authority, certificate=pair)
    except OSError as error:
        fail(f"{error.filename or token_file}: {error.strerror or type(error).__name__}")
