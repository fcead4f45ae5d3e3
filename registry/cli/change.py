"""Commands `pool-schema diff`, `register`, `find` and `approval`: from a changed schema file to a registered version.

pool-schema diff senior-card.v1-value new.avsc --url …      what the change means for readers and grants
pool-schema register senior-card.v1-value new.avsc --url …  refused where it lowers a classification
pool-schema approval ask senior-card.v1-value new.avsc --reason … --url …
pool-schema approval decide ID --approve --url …            by another person
"""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from registry.cli.command_group import CommandGroup
from registry.cli.options import with_optional_registry, with_registry
from registry.cli.terminal import FOUND, console, count, fail, load_schema, read, write
from schemas.errors import InvalidError, PoolError, Reason

if TYPE_CHECKING:
    from registry.client.admin import RegistryAdminClient
    from registry.reports.diff import SchemaChange
    from registry.reports.grant_impact import GrantImpact, GrantUsage

__all__ = ["add_to"]

# By the names of `ReaderImpact` and `ImpactSeverity`, which are loaded when they are needed.
_COLOURS = {"UNTOUCHED": "dim", "BOTH": "green", "READERS_FIRST": "yellow", "WRITERS_FIRST": "yellow", "BROKEN": "red"}
_SEVERITY_COLOURS = {"STOPPED": "red", "DEFAULTED": "yellow", "REVIEW": "cyan"}

approval = typer.Typer(
    cls=CommandGroup, help="Have a lowered classification approved (降级审批).", no_args_is_help=True
)
_Subject = Annotated[str, typer.Argument(metavar="SUBJECT", help="Such as senior-card.v1-value.", show_default=False)]
_File = Annotated[Path, typer.Argument(metavar="FILE", help="The schema (.avsc).", show_default=False)]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    app.command("diff")(diff_)
    app.command("register")(register)
    app.command("find")(find)
    app.add_typer(approval, name="approval")


@with_optional_registry
def diff_(
    registry: "RegistryAdminClient | None",
    old: Annotated[str, typer.Argument(metavar="OLD", help="File, name that ships, or SUBJECT[@VERSION].")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="The same.")],
    *,
    grants: Annotated[
        Path | None, typer.Option("--grants", help="File with the answer of GET /v1/grants; - = standard input.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[bool, typer.Option(help="A logical type that changes its meaning counts as unreadable.")] = True,
) -> None:
    """Compare two schemas by meaning: for readers, and for grants (比较两个版本)."""
    from registry.reports.diff import diff
    from registry.reports.grant_impact import grant_impacts

    before, after = load_schema(old, registry), load_schema(new, registry)
    changes = diff(before, after, strict=strict)
    uses = _grant_uses(old, grants, registry)
    affected = grant_impacts(changes, uses or [], before, after)
    if as_json:
        document: dict[str, Any] = {"changes": [change.to_json() for change in changes]}
        if uses is not None:
            document["grants"] = [item.to_json() for item in affected]
        write(json.dumps(document, ensure_ascii=False, indent=2) + "\n", None)
    else:
        _print_changes(changes, affected, uses)
    if changes:
        raise typer.Exit(FOUND)


@with_registry
def register(
    registry: "RegistryAdminClient",
    subject: _Subject,
    file: _File,
    *,
    metadata: Annotated[
        Path | None, typer.Option("--metadata", help="JSON file with metadata and ruleSet to go with it.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check compatibility only; register nothing.")] = False,
) -> None:
    """Register a schema under a subject, and print its id and version (登记)."""
    from rich.markup import escape

    body: dict[str, Any] = {"schema": read(file)}
    if metadata is not None:
        contract = _read_object(metadata)
        unknown = sorted(contract.keys() - {"metadata", "ruleSet"})
        if unknown or not contract:
            fail(f"{metadata}: got {', '.join(unknown) or 'no member'}; expected metadata and ruleSet")
        body |= contract
    encoded = quote(subject, safe="")
    out = console()
    try:
        if dry_run:
            verdict = registry.call(
                "POST", f"/compatibility/subjects/{encoded}/versions", body, query={"verbose": True}
            )
            for message in verdict.get("messages", ()):
                out.print(f"  {escape(str(message))}", soft_wrap=True)
            if not verdict["is_compatible"]:
                raise typer.Exit(FOUND)
            out.print("[green]✓[/green] compatible")
            return
        registered = registry.call("POST", f"/subjects/{encoded}/versions", body)
        version = registry.call("POST", f"/subjects/{encoded}", body)
    except PoolError as error:
        fail(error.message)
    out.print(f"id {registered['id']}, version {version['version']}")


@with_registry
def find(
    registry: "RegistryAdminClient",
    *,
    tag: Annotated[str | None, typer.Option("--tag", help="Fields with this tag.")] = None,
    personal: Annotated[str | None, typer.Option("--personal", help="D = direct identifiers, P, N.")] = None,
    sensitive: Annotated[str | None, typer.Option("--sensitive", help="S, s, N.")] = None,
    level: Annotated[str | None, typer.Option("--level", help="This level or a higher one.")] = None,
    prefix: Annotated[str | None, typer.Option("--prefix", help="Beginning of the subject's name.")] = None,
) -> None:
    """Find fields by tag and classification in the latest versions (查找字段)."""
    from rich.markup import escape
    from rich.table import Table

    try:
        fields = registry.get(
            "/governance/fields", tag=tag, personal=personal, sensitive=sensitive, level=level, subjectPrefix=prefix
        )
    except PoolError as error:
        fail(error.message)
    table = Table(box=None, pad_edge=False)
    heads = ("subject", "version", "field", "zh", "level", "personal", "sensitive", "mask")
    for head in heads:
        table.add_column("中文" if head == "zh" else head.upper(), overflow="fold")
    for field in fields:
        table.add_row(*(escape(str(field[head])) for head in heads))
    console().print(table)


@approval.command("ask")
@with_registry
def ask(
    registry: "RegistryAdminClient",
    subject: _Subject,
    file: _File,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Why, in words, for the person who decides.")],
) -> None:
    """Request approval to register a schema that lowers a classification (申请)."""
    body = {"subject": subject, "schema": read(file), "reason": reason}
    try:
        _print_request(registry.call("POST", "/approvals", body))
    except PoolError as error:
        fail(error.message)


@approval.command("list")
@with_registry
def list_(
    registry: "RegistryAdminClient",
    *,
    subject: Annotated[str | None, typer.Option("--subject", help="Only requests for this subject.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="asked, approved, refused or used.")] = None,
) -> None:
    """List requests, with the classifications that each would lower (列出)."""
    try:
        for request in registry.get("/approvals", subject=subject, state=state):
            _print_request(request)
    except PoolError as error:
        fail(error.message)


@approval.command("decide")
@with_registry
def decide(
    registry: "RegistryAdminClient",
    approval_id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    *,
    approve: Annotated[bool, typer.Option("--approve/--refuse", help="The decision.")],
    reason: Annotated[str, typer.Option("--reason", help="In words; required for a refusal.")] = "",
) -> None:
    """Approve or refuse a request of another person (审批)."""
    try:
        path = f"/approvals/{quote(approval_id, safe='')}/decision"
        _print_request(registry.call("POST", path, {"approve": approve, "reason": reason}))
    except PoolError as error:
        fail(error.message)


def _grant_uses(old: str, grants: Path | None, registry: "RegistryAdminClient | None") -> "list[GrantUsage] | None":
    """Return the grants to compare with: from a file, else from the registry that the old schema came from."""
    from registry.reports.grant_impact import read_grant_usage

    try:
        if grants is not None:
            text = sys.stdin.read() if str(grants) == "-" else read(grants)
            documents = json.loads(text)
            if not isinstance(documents, list):
                raise InvalidError(Reason.REQUEST_INVALID, "got JSON that is no list; expected a list of grants")
            topic = _topic(old)
            return [read_grant_usage(document) for document in documents if topic in (None, document.get("topic"))]
        if registry is not None and _topic(old) is not None and not Path(old).exists():
            subject = quote(old.partition("@")[0], safe="")
            return [read_grant_usage(document) for document in registry.get(f"/governance/subjects/{subject}/grants")]
    except ValueError as error:
        fail(f"{grants}: {error}")
    except PoolError as error:
        if registry is not None and grants is None:
            from rich.markup import escape

            console(stderr=True).print(f"grants are not shown: {escape(error.message)}", soft_wrap=True)
            return None
        fail(error.message)
    return None


def _topic(name: str) -> str | None:
    subject = name.partition("@")[0]
    return subject.removesuffix("-value") if subject.endswith("-value") else None


def _print_changes(
    changes: "list[SchemaChange]", affected: "list[GrantImpact]", uses: "list[GrantUsage] | None"
) -> None:
    from rich.markup import escape
    from rich.table import Table

    out = console()
    if not changes:
        out.print("[green]✓[/green] no change of meaning")
        return
    table = Table(box=None, pad_edge=False)
    for head in ("FIELD", "中文", "CHANGE", "BEFORE", "AFTER", "READERS"):
        table.add_column(head, overflow="fold")
    for change in changes:
        approval_needed = " [red]approval[/red]" if change.approval else ""
        colour = _COLOURS[change.readers.name]
        table.add_row(
            escape(change.path) or "-",
            escape(change.zh),
            f"{change.kind}{approval_needed}",
            escape(change.before),
            escape(change.after),
            f"[{colour}]{change.readers}[/{colour}]",
        )
    out.print(table)
    for change in changes:
        for text in change.because:
            out.print(f"  {escape(change.path or 'record')}: {escape(text)}", soft_wrap=True)
    if uses is None:
        return
    out.print(f"\n{count(len({item.grant for item in affected}), 'grant')} of {len(uses)} touched")
    for item in sorted(affected, key=lambda each: (-each.severity, each.grant)):
        colour = _SEVERITY_COLOURS[item.severity.name]
        word = f"[{colour}]{item.severity.name.lower()}[/{colour}]"
        out.print(f"  {word} {escape(item.grant)} of {escape(item.consumer)}: {escape(item.because)}", soft_wrap=True)


def _print_request(request: dict[str, Any]) -> None:
    from rich.markup import escape

    out = console()
    name, subject, state = (escape(str(request[key])) for key in ("id", "subject", "state"))
    out.print(f"[bold]{name}[/bold] {subject}: {state}")
    out.print(f"  asked by {escape(str(request['askedBy']))}: {escape(str(request['reason']))}", soft_wrap=True)
    for finding in request["findings"]:
        out.print(f"  {escape(str(finding))}", soft_wrap=True)
    if request["decidedBy"]:
        decided = f"  decided by {escape(str(request['decidedBy']))} {escape(str(request['answer']))}".rstrip()
        out.print(decided, soft_wrap=True)


def _read_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(read(file))
    except ValueError as error:
        fail(f"{file}: {error}")
    if not isinstance(value, dict):
        fail(f"{file}: got JSON that is no object; expected an object")
    return value
