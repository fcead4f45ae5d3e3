"""`pool department | user | connector | catalogue | purposes | request | grant`: the control API from a terminal."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from exchange.admin_client import AdminClient, from_options
from exchange.cli.output import show
from registry.directory.model import GovernmentLevel
from schemas.access import Role
from schemas.errors import InvalidError, Reason

__all__ = ["add_to", "connect", "remote", "table"]

_Data = Annotated[Path | None, typer.Option("--data", help="the pool's folder, on its own machine", envvar="POOL_DATA")]
_Url = Annotated[str | None, typer.Option("--url", help="address of the control API")]
_Token = Annotated[Path | None, typer.Option("--token-file", help="file with the account's token")]
_Authority = Annotated[Path | None, typer.Option("--authority", help="the pool's certificate authority, PEM")]
_Reason = Annotated[str, typer.Option("--reason", help="in words; it goes into the audit log")]


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for name, group, text in (
        ("department", department, "Departments and invitations of their connectors."),
        ("user", user, "Accounts of people."),
        ("connector", connector, "Connectors of departments."),
        ("catalogue", catalogue, "Catalogue of information resources (政务信息资源目录)."),
        ("request", request, "Share requests (共享申请)."),
        ("grant", grant, "Grants (授权): approve, reject, suspend, resume, terminate."),
    ):
        app.add_typer(group, name=name, help=text, no_args_is_help=True)
    app.command("purposes")(purposes)


department, user, connector, catalogue, request, grant = (typer.Typer() for _ in range(6))


def remote(context: typer.Context) -> AdminClient:
    """Return the API that the group's options name."""
    found: AdminClient = context.obj
    return found


def connect(
    context: typer.Context,
    data: _Data = None,
    url: _Url = None,
    token_file: _Token = None,
    authority: _Authority = None,
) -> None:
    """Remember whom the commands call. The options stand before the command's name, or POOL_DATA is set."""
    context.obj = from_options(data, url, token_file, authority)


for _group in (department, user, connector, catalogue, request, grant):
    _group.callback()(connect)


@department.command("add")
def department_add(
    context: typer.Context,
    name: Annotated[str, typer.Option()],
    short_name: Annotated[str, typer.Option()],
    uscc: Annotated[str, typer.Option(help="unified social credit code (统一社会信用代码)")],
    division_code: Annotated[str, typer.Option()],
    level: Annotated[GovernmentLevel, typer.Option()] = GovernmentLevel.CITY,
) -> None:
    """Register a department."""
    body = {"name": name, "short_name": short_name, "uscc": uscc, "division_code": division_code, "level": str(level)}
    show(remote(context).post("/departments", body))


@department.command("list")
def department_list(context: typer.Context) -> None:
    """List the departments."""
    table(remote(context).get("/departments"), ("id", "short_name", "name", "level", "division_code", "status"))


@department.command("invite")
def department_invite(
    context: typer.Context,
    department_id: str,
    connector_name: Annotated[str | None, typer.Option("--connector", help="only this connector may use it")] = None,
) -> None:
    """Print a one-time enrolment token (7 days) for `pool-connect enrol`."""
    answer = remote(context).post(f"/departments/{department_id}/invitations", {"connector": connector_name})
    print(answer["token"])


@user.command("add")
def user_add(
    context: typer.Context,
    name: str,
    role: Annotated[Role, typer.Option()],
    department_id: Annotated[str, typer.Option("--department", help="empty for roles of the pool itself")] = "",
) -> None:
    """Add an account and print its token, once: redirect it into a file of mode 0600."""
    answer = remote(context).post("/users", {"name": name, "role": str(role), "department": department_id})
    print(answer["token"])


@connector.command("revoke")
def connector_revoke(context: typer.Context, department_id: str, name: str, reason: _Reason) -> None:
    """Revoke a connector's certificates: its next call is refused."""
    body = {"department": department_id, "connector": name, "reason": reason}
    remote(context).post("/connectors/revocations", body)
    print(f"{name}: every certificate is revoked")


@catalogue.command("draft")
def catalogue_draft(context: typer.Context, file: Path) -> None:
    """Draft an entry from a YAML or JSON file."""
    show(remote(context).post("/catalogue", _document(file)))


@catalogue.command("schema")
def catalogue_schema(context: typer.Context, topic: str, file: Path) -> None:
    """Register an Avro schema (.avsc) of a catalogued resource."""
    show(remote(context).post(f"/catalogue/{topic}/schemas", {"text": _text(file)}))


@catalogue.command("publish")
def catalogue_publish(context: typer.Context, topic: str) -> None:
    """Publish an entry; its topic is made."""
    show(remote(context).post(f"/catalogue/{topic}/publication"))


@catalogue.command("archive")
def catalogue_archive(context: typer.Context, topic: str) -> None:
    """Archive an entry."""
    show(remote(context).post(f"/catalogue/{topic}/archival"))


@catalogue.command("list")
def catalogue_list(context: typer.Context) -> None:
    """List the catalogue."""
    table(remote(context).get("/catalogue"), ("topic", "title", "share_type", "level", "state", "code"))


@request.command("submit")
def request_submit(context: typer.Context, file: Path) -> None:
    """File a share request from a YAML or JSON file; prints the request with its id."""
    show(remote(context).post("/requests", _document(file)))


@grant.command("list")
def grant_list(context: typer.Context) -> None:
    """List the grants that you may see."""
    table(remote(context).get("/grants"), ("id", "topic", "state", "purpose", "fields", "expires"))


@grant.command("approve")
def grant_approve(context: typer.Context, grant_id: str) -> None:
    """Approve a request; it is in force when this returns."""
    show(remote(context).post(f"/grants/{grant_id}/approval"))


def _event(event: str, text: str) -> Any:
    def command(context: typer.Context, grant_id: str, reason: _Reason = "") -> None:
        answer = remote(context).post(f"/grants/{grant_id}/{event}", {"reason": reason})
        print(f"{grant_id}: {answer['state']}")

    command.__doc__ = text
    return command


grant.command("reject")(_event("reject", "Reject a request."))
grant.command("suspend")(_event("suspend", "Suspend a grant; nothing leaves under it once this has returned."))
grant.command("resume")(_event("rectified", "Let a suspended grant go on."))
grant.command("terminate")(_event("terminate", "End a suspended grant for good."))


def purposes(data: _Data = None, url: _Url = None, token_file: _Token = None, authority: _Authority = None) -> None:
    """List the purposes that a request may name (使用目的)."""
    table(from_options(data, url, token_file, authority).get("/purposes"), ("id", "zh", "en", "parent"))


def _document(file: Path) -> dict[str, Any]:
    try:
        value = YAML(typ="safe").load(_text(file))
    except YAMLError as error:
        place = getattr(error, "problem_mark", None)
        line = f"{file}:{place.line + 1}:{place.column + 1}" if place else str(file)
        raise InvalidError(Reason.CONFIG_INVALID, f"{line}: {getattr(error, 'problem', 'is no YAML')}") from error
    if not isinstance(value, dict):
        raise InvalidError(Reason.CONFIG_INVALID, f"{file}: got {type(value).__name__}; expected a mapping")
    # YAML knows times; the API takes ISO 8601 text.
    return {key: item.isoformat() if hasattr(item, "isoformat") else item for key, item in value.items()}


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{file}: {error.strerror}") from error


def table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> None:
    """Print a table on a terminal, tab-separated lines elsewhere."""
    if not sys.stdout.isatty():
        for row in rows:
            print("\t".join(_cell(row.get(column)) for column in columns))
        return
    table = Table(*columns)
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    Console().print(table)


def _cell(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "" if value is None else str(value)
