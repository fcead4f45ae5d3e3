"""Options that commands of `pool-schema` share: which registry, who calls, and where the result goes.

@at_registry                       takes --url, --token-file, --authority, --certificate and --key in place of
def find(registry: Remote, …)      its first parameter; fails without --url
@perhaps_at_registry               the same, with None where there is no --url
"""

import inspect
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from registry.cli.terminal import fail
from registry.client.admin import RegistryAdminClient

__all__ = ["Out", "at_registry", "perhaps_at_registry", "required"]

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


def at_registry(command: Callable[Concatenate[RegistryAdminClient, _P], None]) -> Callable[..., None]:
    """Let a command take the options that name a registry, and give it that as its first argument.

    Without --url it fails.
    """
    return _with_options(command, required)


def perhaps_at_registry(command: Callable[Concatenate[RegistryAdminClient | None, _P], None]) -> Callable[..., None]:
    """Let a command take the options that name a registry, and give it that, or None without --url."""
    return _with_options(command, lambda found: found)


def required(found: RegistryAdminClient | None) -> RegistryAdminClient:
    """Return the registry, or fail where none is named."""
    if found is None:
        fail("got no --url (or POOL_REGISTRY_URL); expected the address of a registry")
    return found


def _with_options(
    command: Callable[..., None], chosen: Callable[[RegistryAdminClient | None], Any]
) -> Callable[..., None]:
    @wraps(command)
    def run(*arguments: Any, **given: Any) -> None:
        found = _remote(**{name: given.pop(name) for name in _OPTIONS})
        command(chosen(found), *arguments, **given)

    signature = inspect.signature(command)
    own = list(signature.parameters.values())[1:]
    more = [
        inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=o) for n, o in _OPTIONS.items()
    ]
    run.__signature__ = signature.replace(parameters=[*own, *more])  # type: ignore[attr-defined]  # what typer reads
    run.__annotations__ = {each.name: each.annotation for each in (*own, *more)}
    return run


def _remote(
    url: str | None, token_file: Path | None, authority: Path | None, certificate: Path | None, key: Path | None
) -> RegistryAdminClient | None:
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
