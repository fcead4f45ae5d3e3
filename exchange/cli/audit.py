"""Commands `pool audit list`, `show`, `prove`, `checkpoint`, `verify`, `check-proof`: search and verify the audit log.

`verify` works offline: with the log's files (or a copy) and its public key, without database, broker or pool. Keep a
checkpoint outside the pool and pass it with `--since`: then any later change of the entries under it is found, even
one made with every key of the pool.
"""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from exchange.audit.search.entry_rows import COLUMNS, csv_line, entry_row
from exchange.cli import audit_reports
from exchange.cli.control import client, connect
from exchange.cli.output import CommandGroup, print_json, print_line, print_lines, print_table, write_text
from schemas.errors import InvalidError, Reason

if TYPE_CHECKING:
    from exchange.audit.note import NoteKey
    from exchange.audit.verify import VerificationReport

__all__ = ["add_to", "read_key", "read_text"]

_PAGE = 1_000  # entries

# Options of several commands.
_DepartmentOption: TypeAlias = Annotated[str | None, typer.Option(help="internal id of the actor's department")]
_ActorOption: TypeAlias = Annotated[str | None, typer.Option(help="account, or connector within its department")]
_ResourceOption: TypeAlias = Annotated[str | None, typer.Option()]
_PurposeOption: TypeAlias = Annotated[str | None, typer.Option()]
_CaseOption: TypeAlias = Annotated[str | None, typer.Option()]
_GrantOption: TypeAlias = Annotated[str | None, typer.Option()]
_ActionOption: TypeAlias = Annotated[str | None, typer.Option(help="such as exchange:records:fetch")]
_DecisionOption: TypeAlias = Annotated[str | None, typer.Option(help="allow or deny")]
_DenialOption: TypeAlias = Annotated[str | None, typer.Option(help="reason code of denials")]
_PartyOption: TypeAlias = Annotated[
    str | None, typer.Option(help="a department's id: by its actors, or about its resources")
]
_FromOption: TypeAlias = Annotated[str | None, typer.Option("--from", help="ISO 8601 with offset, or a day of UTC+8")]
_ToOption: TypeAlias = Annotated[str | None, typer.Option(help="ISO 8601 with offset, or a day of UTC+8; exclusive")]
_DataOption: TypeAlias = Annotated[Path | None, typer.Option("--data", envvar="POOL_DATA")]
_UrlOption: TypeAlias = Annotated[str | None, typer.Option("--url")]
_TokenOption: TypeAlias = Annotated[Path | None, typer.Option("--token-file")]
_AuthorityOption: TypeAlias = Annotated[Path | None, typer.Option("--authority")]


class EntryFormat(StrEnum):
    """Form of a list of entries."""

    TEXT = "text"
    CSV = "csv"
    JSONL = "jsonl"


class ExportFormat(StrEnum):
    """Form of an export."""

    CSV = "csv"
    JSONL = "jsonl"


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    audit = typer.Typer(cls=CommandGroup)
    audit.command("verify")(verify)
    audit.command("check-proof")(check_proof_file)
    app.add_typer(audit, name="audit", help="The audit log (审计日志): list, prove, verify.", no_args_is_help=True)
    for name, command in (
        ("list", list_entries),
        ("export", export),
        ("bundle", bundle),
        ("show", show),
        ("prove", prove),
        ("checkpoint", checkpoint),
        ("keys", keys),
        ("prune-keys", prune_keys),
        ("reindex", reindex),
    ):
        audit.command(name)(command)
    audit_reports.add_to(audit)


def list_entries(
    context: typer.Context,
    data: _DataOption = None,
    url: _UrlOption = None,
    token_file: _TokenOption = None,
    authority: _AuthorityOption = None,
    department: _DepartmentOption = None,
    actor: _ActorOption = None,
    resource: _ResourceOption = None,
    purpose: _PurposeOption = None,
    case: _CaseOption = None,
    grant: _GrantOption = None,
    action: _ActionOption = None,
    decision: _DecisionOption = None,
    reason: _DenialOption = None,
    party: _PartyOption = None,
    from_: _FromOption = None,
    to: _ToOption = None,
    limit: Annotated[int, typer.Option(min=1, help="entries at most; read in pages of 1,000")] = 50,
    form: Annotated[
        EntryFormat, typer.Option("--format", help="text, csv (safe from spreadsheet formulas), or jsonl")
    ] = EntryFormat.TEXT,
    as_json: Annotated[bool, typer.Option("--json")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="as --format csv")] = False,
) -> None:
    """List entries, newest first, each with who acted, its id and its proof status. The search leaves an entry too."""
    connect(context, data, url, token_file, authority)
    query = {
        "department": department,
        "actor": actor,
        "resource": resource,
        "purpose": purpose,
        "case": case,
        "grant": grant,
        "action": action,
        "decision": decision,
        "reason": reason,
        "party": party,
        "from": from_,
        "to": to,
    }
    found = _pages(context, query, limit)
    form = EntryFormat.CSV if as_csv else form
    if as_json:
        print_json(list(found))
    elif form is EntryFormat.JSONL:
        for document in found:
            print_json(document, indent=None)
    elif form is EntryFormat.CSV:
        write_text(csv_line(COLUMNS))
        for document in found:
            write_text(csv_line(entry_row(document).values()))
    else:
        print_table([entry_row(document) for document in found], COLUMNS)


def export(
    context: typer.Context,
    form: Annotated[ExportFormat, typer.Option("--format", help="csv (safe from spreadsheet formulas), or jsonl")],
    output: Annotated[Path | None, typer.Option("--output", help="new file; standard output if not given")] = None,
    data: _DataOption = None,
    url: _UrlOption = None,
    token_file: _TokenOption = None,
    authority: _AuthorityOption = None,
    department: _DepartmentOption = None,
    actor: _ActorOption = None,
    resource: _ResourceOption = None,
    purpose: _PurposeOption = None,
    case: _CaseOption = None,
    grant: _GrantOption = None,
    action: _ActionOption = None,
    decision: _DecisionOption = None,
    reason: _DenialOption = None,
    party: _PartyOption = None,
    from_: _FromOption = None,
    to: _ToOption = None,
) -> None:
    """Export all entries that match, newest first, each with its id and who acted.

    The export is two entries of the log: what was asked, before the first row, and how many left, after the last.
    """
    connect(context, data, url, token_file, authority)
    query = {
        "department": department,
        "actor": actor,
        "resource": resource,
        "purpose": purpose,
        "case": case,
        "grant": grant,
        "action": action,
        "decision": decision,
        "reason": reason,
        "party": party,
        "from": from_,
        "to": to,
    }
    path = f"/audit/entries.{form}"
    if output is None:
        with client(context).download(path, query) as parts:
            begun = b""
            for part in parts:
                whole, end, begun = (begun + part).rpartition(b"\n")
                write_text((whole + end).decode())
            write_text(begun.decode())
        return
    try:
        # First: an export that has no place to go must not be in the log.
        with output.open("xb") as file, client(context).download(path, query) as parts:
            file.writelines(parts)
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{output}: {error.strerror}") from error


def bundle(
    context: typer.Context,
    output: Annotated[Path, typer.Argument(help="new file, a ZIP archive", metavar="FILE")],
    entry: Annotated[list[str] | None, typer.Option("--entry", help="id of an entry; repeat it for several")] = None,
    data: _DataOption = None,
    url: _UrlOption = None,
    token_file: _TokenOption = None,
    authority: _AuthorityOption = None,
    department: _DepartmentOption = None,
    actor: _ActorOption = None,
    resource: _ResourceOption = None,
    purpose: _PurposeOption = None,
    case: _CaseOption = None,
    grant: _GrantOption = None,
    action: _ActionOption = None,
    decision: _DecisionOption = None,
    reason: _DenialOption = None,
    party: _PartyOption = None,
    from_: _FromOption = None,
    to: _ToOption = None,
) -> None:
    """Make an evidence bundle (证据包): entries with their proofs and the grants that they name, to be checked offline.

    Of the entries that are named, or of all that match, 1,000 at most. The bundle is two entries of the log.
    """
    connect(context, data, url, token_file, authority)
    query = {
        "department": department,
        "actor": actor,
        "resource": resource,
        "purpose": purpose,
        "case": case,
        "grant": grant,
        "action": action,
        "decision": decision,
        "reason": reason,
        "party": party,
        "from": from_,
        "to": to,
    }
    given = {name: value for name, value in query.items() if value is not None}
    body: dict[str, Any] = {"entries": entry} if entry else {"query": given}
    if entry and given:
        raise InvalidError(Reason.CONFIG_INVALID, "got --entry and criteria; expected one of the two")
    try:
        # First: a bundle that has no place to go must not be in the log.
        with output.open("xb") as file:
            try:
                with client(context).download("/audit/bundles", body=body) as parts:
                    file.writelines(parts)
            except BaseException:
                output.unlink()  # a part of a bundle is none
                raise
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{output}: {error.strerror}") from error
    print_line(f"written to {output}; check it with the log's key that you have kept: see README.txt in it")


def _pages(context: typer.Context, query: dict[str, Any], limit: int) -> Iterator[dict[str, Any]]:
    """Yield the entries of a search, page by page, so that a long list needs no memory."""
    after = None
    while limit > 0:
        size = min(limit, _PAGE)
        page = client(context).get("/audit/entries", {**query, "limit": size, "after": after})
        yield from page
        if len(page) < size:
            return
        limit -= size
        after = page[-1]["cursor"]


def show(
    context: typer.Context,
    entry_id: str,
    data: _DataOption = None,
    url: _UrlOption = None,
    token_file: _TokenOption = None,
    authority: _AuthorityOption = None,
) -> None:
    """Print one entry as you may see it; `withheld` names what is left out. The look-up leaves an entry too."""
    connect(context, data, url, token_file, authority)
    print_json(client(context).get(f"/audit/entries/{entry_id}"))


def prove(
    context: typer.Context,
    entry_id: str,
    data: _DataOption = None,
    url: _UrlOption = None,
    token_file: _TokenOption = None,
    authority: _AuthorityOption = None,
) -> None:
    """Print an entry's proof (C2SP tlog-proof); with the log's public key it can be checked without the pool.

    If you do not see all of the entry, the proof is of its leaf hash and does not hold the entry.
    """
    connect(context, data, url, token_file, authority)
    write_text(client(context).get(f"/audit/entries/{entry_id}/proof"))


def checkpoint(
    context: typer.Context,
    data: _DataOption = None,
    url: _UrlOption = None,
    token_file: _TokenOption = None,
    authority: _AuthorityOption = None,
) -> None:
    """Print the newest signed checkpoint; keep it outside the pool."""
    connect(context, data, url, token_file, authority)
    write_text(client(context).get("/audit/checkpoint"))


def keys(
    context: typer.Context,
    data: _DataOption = None,
    url: _UrlOption = None,
    token_file: _TokenOption = None,
    authority: _AuthorityOption = None,
) -> None:
    """List the months whose pseudonyms beside receipts can be read, with the fingerprints of their keys."""
    connect(context, data, url, token_file, authority)
    print_table(client(context).get("/audit/keys"), ("epoch", "over", "fingerprint"))


def prune_keys(
    context: typer.Context,
    before: Annotated[str | None, typer.Option("--before", help="propose: the first month that stays, YYYY-MM")] = None,
    confirm: Annotated[str | None, typer.Option("--confirm", help="confirm: id of another person's proposal")] = None,
    data: _DataOption = None,
    url: _UrlOption = None,
    token_file: _TokenOption = None,
    authority: _AuthorityOption = None,
) -> None:
    """Destroy the keys and pseudonyms of the trace before a month: one person proposes, another confirms."""
    if (before is None) == (confirm is None):
        raise InvalidError(Reason.REQUEST_INVALID, "expected either --before MONTH, or --confirm with a proposal's id")
    connect(context, data, url, token_file, authority)
    if confirm is not None:
        print_json(client(context).post(f"/audit/keys/prunings/{confirm}/confirmation"))
        return
    print_json(client(context).post("/audit/keys/prunings", {"before": before}))


def reindex(
    database: Annotated[Path, typer.Option("--database", help="file with the database's address")],
) -> None:
    """Fill the columns of the log's search for entries of an earlier version. The pool may run meanwhile."""
    import sqlalchemy as sa

    from exchange.audit.search.postgres import fill_search_columns

    engine = sa.create_engine(read_text(database).strip())
    try:
        done = fill_search_columns(engine)
    finally:
        engine.dispose()
    print_line(f"{done} entries can be searched by actor and reason now")


def check_proof_file(
    file: Path,
    key: Annotated[str, typer.Option("--key", help="the log's public key, or the file with it (log.pub)")],
    expected: Annotated[
        str | None, typer.Option("--leaf-hash", help="hexadecimal, from a receipt or a list: must be the one proven")
    ] = None,
) -> None:
    """Check a proof file offline, and show the entry that it proves; or its leaf hash, if the file holds no more."""
    from exchange.audit.proof import check_proof

    proven = check_proof(read_text(file), [read_key(key)])
    if expected is not None and expected.lower() != proven.leaf_hash.hex():
        raise InvalidError(
            Reason.LEAF_MISMATCH, "the file proves an entry with another leaf hash; ask for the proof of this entry"
        )
    print_line(f"proven: entry {proven.index} of {proven.checkpoint.origin}, under {proven.checkpoint.size} entries")
    if proven.leaf is not None:
        print_line(proven.leaf.decode())
        return
    print_line(f"leaf hash {proven.leaf_hash.hex()}")
    print_line("The file proves that the entry with this hash is in the log. What the entry says is not in the file.")


def verify(
    files: Annotated[Path, typer.Option("--files", help="the log's folder (DIR/log), or a copy")],
    key: Annotated[str, typer.Option("--key", help="the log's public key, or the file with it (log.pub)")],
    since: Annotated[Path | None, typer.Option("--since", help="a checkpoint kept outside the pool")] = None,
    database: Annotated[
        Path | None, typer.Option("--database", help="file with the database's address: compare every row too")
    ] = None,
    secrets: Annotated[
        Path | None,
        typer.Option("--secrets", help="with --database: the folder of the pool's keys, to check the rows' tags too"),
    ] = None,
    unsigned_seconds: Annotated[
        int, typer.Option(min=1, help="with --database: seconds that an entry may wait for its signature")
    ] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="print the report as a JSON document")] = False,
) -> None:
    """Verify the whole log: tiles, signatures, prefix, counters, ranges, grants; and how far it is signed.

    Ends with 1 if anything is wrong; else with 3 if an entry has waited too long for its signature.
    """
    from exchange.audit.verify import signing_of_files, verify_files

    checkpoint_text = read_text(since) if since else None
    if database is None:
        report = verify_files(files, key=read_key(key), since=checkpoint_text)
        report.signing = signing_of_files(files, unsigned_seconds)
    else:
        report = _verify_with_database(
            files, read_key(key), checkpoint_text, database, secrets, unsigned_seconds=unsigned_seconds, quiet=as_json
        )
    if as_json:
        print_json(report.document())
    else:
        print_lines(report.lines())
    raise typer.Exit(report.exit_code)


def _verify_with_database(
    files: Path,
    key: "NoteKey",
    since: str | None,
    database: Path,
    secrets: Path | None,
    *,
    unsigned_seconds: int,
    quiet: bool,
) -> "VerificationReport":
    import sqlalchemy as sa

    from exchange.access.grants.postgres import stored_quotas
    from exchange.audit.verify_database import verify_database
    from exchange.cli.grant_rows import stored_grants
    from exchange.identity.secrets import FileSecrets
    from exchange.migrations.foreign_objects import foreign_objects
    from exchange.server.roles import Role
    from exchange.server.row_tags import open_entry_tags, open_row_tags, stored_rows

    keys = None if secrets is None else FileSecrets.open(secrets)
    tags = None if keys is None else open_row_tags(keys)
    engine = sa.create_engine(read_text(database).strip())
    try:
        report = verify_database(
            engine,
            files,
            key=key,
            since=since,
            grants=stored_grants,
            tagged=lambda connection: stored_rows(connection, tags),
            objects=foreign_objects,
            entry_tags=None if keys is None else open_entry_tags(keys, frozenset(Role)),
            quotas=stored_quotas,
            unsigned_seconds=unsigned_seconds,
        )
    finally:
        engine.dispose()
    if tags is None and not quiet:
        print_line("without --secrets the tags of rows were compared with the log, but not with what the rows say")
    return report


def read_key(text: str) -> "NoteKey":
    """Return a log's public key from its text, or from the file of this name."""
    from exchange.audit.note import NoteKey

    path = Path(text)
    return NoteKey.parse(read_text(path).strip() if path.is_file() else text)


def read_text(path: Path) -> str:
    """Return a file's text.

    Raises:
        InvalidError: CONFIG_INVALID, it cannot be read.
    """
    try:
        return path.read_text()
    except OSError as error:
        raise InvalidError(Reason.CONFIG_INVALID, f"{path}: {error.strerror}") from error
