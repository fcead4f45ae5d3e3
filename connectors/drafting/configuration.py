"""Draft of a connector's configuration from a few answers: what `pool-connect init` writes. Pure.

The text is one that `lint` accepts; it holds no secret, only references to where a secret is.
"""

import io
from dataclasses import dataclass
from typing import Any

from ruamel.yaml import YAML

from schemas.errors import InvalidError, Reason

__all__ = ["KINDS", "Answers", "write_configuration"]

KINDS = ("sql", "files")


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """Answers; empty = not given.

    Attributes:
        connector: its name.
        identity: folder of its keys and certificate.
        resource: that is published; then `kind` and what belongs to it.
        grant, purpose, case: under which records are fetched; then `kind` and what belongs to it.
        kind: `sql` or `files`, of the source or the target.
        url: of the database, without its password.
        password: reference to the password, `${env:NAME}` or `${file:PATH}`.
        table: that is read, or written.
        slot: of the database's log of changes; then `mode: cdc`.
        path: of the folder.
    """

    connector: str = ""
    identity: str = "identity/"
    resource: str = ""
    grant: str = ""
    purpose: str = ""
    case: str = ""
    kind: str = ""
    url: str = ""
    password: str = ""
    table: str = ""
    slot: str = ""
    path: str = ""


def write_configuration(answers: Answers) -> str:
    """Return the text of a configuration.

    Raises:
        InvalidError: CONFIG_INVALID, answers are missing; the message names their options.
    """
    _require(answers)
    content: dict[str, Any] = {
        "version": 1,
        "connector": answers.connector,
        "exchange": {"identity": answers.identity},
    }
    if answers.resource:
        content |= _publishing(answers)
    else:
        content |= _fetching(answers)
    text = io.StringIO()
    writer = YAML()
    writer.indent(mapping=2, sequence=4, offset=2)
    writer.dump(content, text)
    return text.getvalue()


def _publishing(answers: Answers) -> dict[str, Any]:
    if answers.kind == "files":
        source = {"kind": "files", "path": answers.path, "pattern": "*.csv", "ready_when": "unchanged for 30s"}
        return {"source": source, "publish": [{"resource": answers.resource}]}
    database = {"kind": "sql", **_database(answers)}
    section = {"resource": answers.resource, "table": answers.table}
    if answers.slot:
        database["cdc"] = {"slot": answers.slot}
        section["mode"] = "cdc"
    return {"source": database, "publish": [section]}


def _fetching(answers: Answers) -> dict[str, Any]:
    section = {"grant": answers.grant, "purpose": answers.purpose}
    if answers.case:
        section["case"] = answers.case
    if answers.kind == "files":
        into: dict[str, Any] = {"kind": "csv", "path": answers.path}
    else:
        into = {"kind": "sql", **_database(answers), "table": answers.table, "create_table": True}
    return {"subscribe": [{**section, "into": into}]}


def _database(answers: Answers) -> dict[str, Any]:
    return {"url": answers.url, **({"password": answers.password} if answers.password else {})}


def _require(answers: Answers) -> None:
    if bool(answers.resource) is bool(answers.grant):
        raise InvalidError(
            Reason.CONFIG_INVALID,
            "expected --resource (this connector publishes) or --grant (it fetches), and not both",
        )
    if answers.kind not in KINDS:
        raise InvalidError(Reason.CONFIG_INVALID, f"--kind: got {answers.kind[:40]!r}; expected sql or files")
    wanted = ["path"] if answers.kind == "files" else ["url", "table"]
    wanted += ["purpose"] if answers.grant else []
    missing = [f"--{name}" for name in ("connector", *wanted) if not getattr(answers, name)]
    if missing:
        raise InvalidError(Reason.CONFIG_INVALID, f"missing: {', '.join(missing)}")
