"""Commands `pool backup …`: create a backup, verify one without a server, restore one, settle the restore.

The keys are sealed into a file of their own, with a passphrase or a key file. Neither is ever an argument: a passphrase
is read from a file of mode 0600, or asked for at a terminal.
"""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exchange.cli.audit import read_key, read_text
from exchange.cli.control import client, connect
from exchange.cli.output import CommandGroup, print_json, print_line, print_lines
from exchange.cli.run import Data
from schemas.errors import InvalidError, Reason

if TYPE_CHECKING:
    from exchange.backup.manifest import Manifest
    from exchange.backup.sealed_file import SealingKey

__all__ = ["add_to"]

PassphraseFile = Annotated[
    Path | None, typer.Option("--passphrase-file", help="file of mode 0600 with the passphrase in its first line")
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="key file that `pool backup new-key` wrote")]
PgBin = Annotated[Path | None, typer.Option("--pg-bin", help="folder with PostgreSQL's client tools")]


def add_to(app: typer.Typer) -> None:
    """Register the commands with the program."""
    backup = typer.Typer(cls=CommandGroup)
    backup.command("create")(create)
    backup.command("verify")(verify)
    backup.command("restore")(restore_command)
    backup.command("status")(status)
    backup.command("settle")(settle)
    backup.command("new-key")(new_key)
    app.add_typer(backup, name="backup", help="Backup (备份) and restore (恢复) of a pool.", no_args_is_help=True)


def create(
    data: Data,
    out: Annotated[Path, typer.Option("--out", help="folder to write; must not exist")],
    sealed: Annotated[Path, typer.Option("--sealed", help="file to write with the sealed keys; must not exist")],
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    pg_bin: PgBin = None,
) -> None:
    """Back up the database, the log and the configuration into a folder, and the sealed keys into a file beside it.

    The pool may be running. Keep the two apart: who has one of them has nothing.
    """
    from exchange.backup.create import create_backup
    from exchange.config import Config

    made = create_backup(
        Config.load(data), out, sealed, _sealing_key(passphrase_file, key_file, new=True), pg_bin=pg_bin
    )
    print_line(f"backup of {made.manifest.pool} made in {made.folder}")
    _print_manifest(made.manifest)
    print_line(f"  sealed keys     {made.sealed}: keep them, and what opens them, in other places than the backup")
    print_line(f"  client tool     {made.tool} ({made.manifest.client})")
    files = (("--key-file", key_file), ("--passphrase-file", passphrase_file))
    opened_by = "".join(f" {option} {file}" for option, file in files if file is not None)
    print_line(f"next: pool backup verify {made.folder} --sealed {made.sealed}{opened_by}")


def verify(
    backup: Annotated[Path, typer.Argument(help="the backup's folder")],
    key: Annotated[str | None, typer.Option("--key", help="the log's public key, or the file of it (log.pub)")] = None,
    since: Annotated[Path | None, typer.Option("--since", help="a checkpoint kept outside the pool")] = None,
    sealed: Annotated[Path | None, typer.Option("--sealed", help="file with the sealed keys: checks the MAC")] = None,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    pg_bin: PgBin = None,
) -> None:
    """Verify a backup: hashes, log, and the dump's rows against the log. Needs no server. Ends with 1 if wrong."""
    from exchange.backup.verify import verify_backup

    opened = None if sealed is None else (sealed, _sealing_key(passphrase_file, key_file))
    manifest, report, skipped = verify_backup(
        backup,
        key=None if key is None else read_key(key),
        since=None if since is None else read_text(since),
        sealed=opened,
        pg_bin=pg_bin,
    )
    print_line(f"backup of {manifest.pool}")
    _print_manifest(manifest)
    for sentence in skipped:
        print_line(f"note: {sentence}")
    print_lines(report.lines())
    if report.checkpoint is None:  # a log that was never signed
        print_line("nothing is wrong" if report.ok else "DO NOT TRUST IT")
    raise typer.Exit(report.exit_code)


def restore_command(
    backup: Annotated[Path, typer.Argument(help="the backup's folder")],
    data: Annotated[Path, typer.Option("--data", help="the new folder, empty or absent")],
    sealed: Annotated[Path, typer.Option("--sealed", help="file with the sealed keys of the backup")],
    log: Annotated[Path | None, typer.Option("--log", help="the old log's folder, if it survived")] = None,
    erasures: Annotated[
        Path | None, typer.Option("--erasures", help="the newest erasures.jsonl, if there is one")
    ] = None,
    since: Annotated[Path | None, typer.Option("--since", help="a checkpoint kept outside the pool")] = None,
    database: Annotated[
        str | None, typer.Option(help="${file:PATH} or ${env:NAME} with the address of an empty database")
    ] = None,
    passphrase_file: PassphraseFile = None,
    key_file: KeyFile = None,
    pg_bin: PgBin = None,
) -> None:
    """Restore a backup into a new folder, never over an old one. The old pool must not be running.

    With --log nothing that was signed is lost: what was revoked, ended and erased since the backup is so again. Without
    it a log of another name begins, and all grants are suspended. Either way nothing is released before two persons
    have settled the restore.
    """
    from exchange.backup.restore import RestorePlan, restore

    plan = RestorePlan(
        backup=backup,
        sealed=sealed,
        key=_sealing_key(passphrase_file, key_file),
        data=data,
        log=log,
        erasures=erasures,
        since=None if since is None else read_text(since),
        database=database,
        pg_bin=pg_bin,
    )
    done = restore(plan)
    print_line(f"pool {done.config.pool_id} restored in {done.config.folder}, generation {done.generation}")
    if done.whole:
        last = datetime.fromtimestamp(done.until / 1e6, UTC).isoformat() if done.until else "the backup"
        print_line(f"  log             {done.config.origin} goes on; {done.entries} entries are newer than the backup")
        print_line(f"  unknown         what was not signed yet when the database was lost, after {last}")
    else:
        print_line(f"  log             {done.config.origin} begins, under another name than before")
        print_line("  unknown         everything after the backup" + _missing(done.missing))
    replay = done.replay
    print_line(f"  rows            {done.older} were set back to the backup, {done.lost} are lost")
    for lane, (now, before) in done.lanes.items():
        print_line(f"  lane            {lane}: batch {now}, was {before}; its connector publishes the rest again")
    for case, grant in done.orders.items():
        print_line(
            f"  order LOST      violation case {case}{f', grant {grant}' if grant else ''}: report and order it again "
            "before the grant is resumed"
        )
    if done.kept is not None:
        print_line(
            f"  records         Kafka has kept every batch: {done.kept.receipts} receipts come from the log, "
            f"{done.kept.recovered} from Kafka alone"
        )
        if done.kept.schemas:
            print_line(
                f"  schemas LOST    ids {', '.join(map(str, done.kept.schemas))}: records of them cannot be read"
            )
    for name, names in (
        ("revoked", replay.revoked),
        ("tokens ended", replay.ended),
        ("tokens KEPT", replay.kept),
        ("certificates", replay.certificates),
        ("suspended", replay.suspended),
        ("terminated", replay.terminated),
    ):
        if names:
            print_line(f"  {name:<15} {', '.join(names)}")
    print_line("nothing is released before two persons have settled this:")
    print_line(f"next: pool serve --data {data}; pool backup status; pool backup settle")


def status(
    context: typer.Context,
    data: Annotated[Path | None, typer.Option("--data", envvar="POOL_DATA")] = None,
    url: Annotated[str | None, typer.Option("--url")] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file")] = None,
    authority: Annotated[Path | None, typer.Option("--authority")] = None,
) -> None:
    """Print the newest restore: what the database did not have, how far each lane is by now, whether it is settled."""
    connect(context, data, url, token_file, authority)
    print_json(client(context).get("/restore"))


def settle(
    context: typer.Context,
    confirm: Annotated[str | None, typer.Option("--confirm", help="confirm: id of another person's proposal")] = None,
    data: Annotated[Path | None, typer.Option("--data", envvar="POOL_DATA")] = None,
    url: Annotated[str | None, typer.Option("--url")] = None,
    token_file: Annotated[Path | None, typer.Option("--token-file")] = None,
    authority: Annotated[Path | None, typer.Option("--authority")] = None,
) -> None:
    """Settle a restore, so that records are released again: one person proposes, another confirms."""
    connect(context, data, url, token_file, authority)
    path = "/restore/settlements" if confirm is None else f"/restore/settlements/{confirm}/confirmation"
    print_json(client(context).post(path))


def _missing(count: int) -> str:
    return f": the checkpoint kept outside covers {count} entries more" if count else ""


def new_key(file: Annotated[Path, typer.Argument(help="file to write; must not exist")]) -> None:
    """Write a key file that seals and opens the keys of backups, instead of a passphrase."""
    from exchange.backup.sealed_file import new_key_file

    new_key_file(file)
    print_line(f"{file} written; without it, what it seals cannot be opened: keep a copy in another place")


def _print_manifest(manifest: "Manifest") -> None:
    records = "in the backup" if manifest.broker == "postgres" else "on Kafka, and not in the backup"
    print_line(f"  made            {manifest.made_at}")
    print_line(f"  database        PostgreSQL {manifest.server // 10_000}, revision {manifest.revision}")
    print_line(f"  log             {manifest.log_size} of {manifest.entries} entries are signed, as {manifest.origin}")
    print_line(f"  records         {records}")
    size = sum(one.size for one in manifest.files.values())
    print_line(f"  size            {size / 1e6:,.1f} MB in {len(manifest.files)} files")


def _sealing_key(passphrase_file: Path | None, key_file: Path | None, *, new: bool = False) -> "SealingKey":
    from exchange.backup.sealed_file import SealingKey

    if passphrase_file is not None or key_file is not None:
        return SealingKey.read(passphrase_file=passphrase_file, key_file=key_file)
    if not sys.stdin.isatty():
        raise InvalidError(
            Reason.CONFIG_INVALID, "expected --passphrase-file or --key-file, since there is no terminal to ask at"
        )
    return SealingKey(passphrase=typer.prompt("passphrase", hide_input=True, confirmation_prompt=new))
