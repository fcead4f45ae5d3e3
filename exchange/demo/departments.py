"""Departments of the demonstration: their own databases and folders, their connectors, their share request.

Each department has a database or a folder of its own; a connector opens nothing of the pool's. Passwords are read from
files of mode 0600, tokens from standard input.
"""

import csv
import json
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import sqlalchemy as sa

from exchange.admin_client import AdminClient
from exchange.demo.authorities import Authorities
from exchange.demo.entry_metadata import entry_metadata
from exchange.demo.people import DISTRICTS, credit_codes, organisations, persons
from exchange.demo.programs import Programs
from exchange.demo.source_database import SourceDatabase
from schemas import library

__all__ = ["CivilAffairs", "HumanResources", "PublicSecurity", "SourceChange"]

_CODES = credit_codes()


@dataclass(frozen=True, slots=True)
class SourceChange:
    """A change of a row at the source, with the row as a consumer is to see it before and after; None = no row."""

    kind: str
    before: tuple[str, ...] | None
    after: tuple[str, ...] | None


class _Department:
    name: ClassVar[str]
    short_name: ClassVar[str]
    connector: ClassVar[str]
    topic = ""
    code = ""
    level = ""
    sharing: ClassVar[dict[str, str]] = {
        "share_type": "conditional",
        "share_scope": "本市各部门",
        "use_purpose": "履行法定职责",
    }

    def __init__(self, authorities: Authorities) -> None:
        self._authorities = authorities
        self._root = authorities.first
        self.id = ""
        self.identity = Path()
        self.config = Path()

    def join(self, data: Path, folder: Path, programs: Programs) -> None:
        """Register the department, add accounts, enrol the connector, publish the catalogue entry."""
        body = {
            "uscc": next(_CODES),
            "name": f"某市{self.short_name}",
            "short_name": self.short_name,
            "level": "city",
            "division_code": "330100",
        }
        self.id = self._root.post("/departments", body)["id"]
        self.identity = folder / self.connector / "identity"
        officer = self._account("security_officer", None)
        proposal = self._root.post(f"/departments/{self.id}/invitations", {"connector": self.connector})
        token = officer.post(f"/proposals/{proposal['id']}/confirmation")["token"]
        programs.connect(
            "enrol", "-", "--identity", str(self.identity), "--connector", self.connector, stdin=token + "\n"
        )
        self.officer = officer
        self.head = self._account("sharing_office_head", officer)
        if self.topic:
            self._publish_entry(officer)
        self._prepare(data, folder)

    def told(self, grant_id: str) -> list[str]:
        """Return what an approver is told of a request, in words."""
        return list(self.head.get(f"/grants/{grant_id}")["review"]["words"])

    def countersign(self, grant_id: str) -> str:
        """Sign a request as the security officer; return its state."""
        return str(self.officer.post(f"/grants/{grant_id}/countersignature")["state"])

    def approve(self, grant_id: str) -> str:
        """Sign a request as the head of the sharing office, or activate what everybody has signed; return its state."""
        return str(self.head.post(f"/grants/{grant_id}/approval")["state"])

    def decide(self, request_id: str, event: str, **said: object) -> str:
        """Let the head of the sharing office carry an event of a request out; return its state."""
        return str(self.head.post(f"/requests/{request_id}/{event}", said)["state"])

    def refusals(self) -> list[dict[str, Any]]:
        """Return the entries of refusals on the department's own resource, as its security officer sees them."""
        query = {"resource": self.topic, "action": "exchange:records:fetch", "decision": "deny"}
        return [document["entry"] for document in self.officer.get("/audit/entries", query)]

    def _publish_entry(self, officer: AdminClient) -> None:
        self.editor = self._account("catalogue_editor", officer)
        text = library.text(self.topic.split(".")[0].replace("-", "_"))
        self._publish(self.topic, text, code=self.code, level=self.level, sharing=self.sharing)

    def _publish(self, topic: str, text: str, *, code: str, level: str, sharing: Mapping[str, str]) -> None:
        """Take an entry with a schema through both reviews and publish it."""
        entry = f"/catalogue/{topic}"
        metadata = entry_metadata(text, code=code, level=level, sharing=sharing)
        self.editor.post(f"{entry}/metadata", metadata.to_document())
        self.editor.post(f"{entry}/schemas", {"text": text})
        self.editor.post(f"{entry}/submission")
        self.head.post(f"{entry}/approval")
        self._root.post(f"{entry}/publication")

    def _account(self, role: str, officer: AdminClient | None) -> AdminClient:
        name = f"{self.connector.split('-')[0]}-{role}".replace("_", "-")
        return self._authorities.account(name, role, self.id, officer)

    def _prepare(self, data: Path, folder: Path) -> None:
        raise NotImplementedError

    def _write_config(self, folder: Path, content: dict[str, Any]) -> None:
        self.config = folder / self.connector / "connector.yaml"
        head = {"version": 1, "connector": self.connector, "exchange": {"identity": str(self.identity)}}
        # JSON is valid YAML; docs/how-to shows the form that a person would write.
        self.config.write_text(json.dumps({**head, **content}, ensure_ascii=False, indent=2))


class PublicSecurity(_Department):
    """Provider with a population table in a PostgreSQL server of its own, whose changes it publishes (`mode: cdc`)."""

    name, short_name, connector = "Public Security 公安局", "公安局", "police-population"
    topic, code, level = "population.v1", "101001/000001", "G4"

    def __init__(self, authorities: Authorities, count: int) -> None:
        super().__init__(authorities)
        self.count = count
        *self._people, self._newcomer = persons(count + 1)
        self._database: SourceDatabase | None = None

    @property
    def database(self) -> SourceDatabase:
        """Return the department's server."""
        assert self._database is not None  # noqa: S101 - tells mypy that the department joins first
        return self._database

    def one_number(self) -> str:
        """Return the identity number of a person."""
        return str(self._people[0]["id_number"])

    def granted(self, fields: Sequence[str], district: str) -> set[tuple[str, ...]]:
        """Return the rows that a grant of these fields and this district has to deliver, as the schema masks them."""
        return {
            self._masked(person, fields) for person in self._people if person["household_division_code"] == district
        }

    def offer_closed(self) -> str:
        """Publish an entry of a resource that a law forbids to share; return its topic."""
        topic, text = "stay-records.v1", {"level": "G4", "personal": "P", "sensitive": "S", "mask": "drop"}
        fields = [{"name": "number", "type": "string", "zh": "登记编号", **text}]
        schema = {
            "type": "record",
            "name": "Stay",
            "doc": "Registrations of hotel guests",
            "zh": "旅馆住宿登记",
            "fields": fields,
            "key": ["number"],
        }
        closed = {
            "share_type": "none",
            "refuse_reason": "侦查工作所用，不对外提供",
            "legal_basis": "《中华人民共和国反恐怖主义法》第四十八条",
        }
        written = json.dumps(schema, ensure_ascii=False)
        self._publish(topic, written, code="101001/000002", level="G4", sharing=closed)
        return topic

    def prepare_database(self, programs: Programs) -> list[str]:
        """Execute, as the database's owner, the statements that the connector prints; return them."""
        printed = programs.connect("setup", str(self.config), "--print-sql").output.splitlines()
        self.database.execute(printed)
        programs.connect("check", str(self.config))
        return printed

    def change(self, fields: Sequence[str], district: str) -> list[SourceChange]:
        """Insert a row of a district, give another one another name, and delete a third, in one transaction."""
        inserted = {**self._newcomer, "household_division_code": district}
        residents = [each for each in self._people[1:] if each["household_division_code"] == district]
        before, deleted = residents[:2]
        updated = {**before, "full_name": "欧" + str(before["full_name"])[1:]}  # a surname that nobody has
        table = sa.table("population", *map(sa.column, inserted))
        with self.database.engine.begin() as connection:
            connection.execute(table.insert().values(inserted))
            where = table.c.id_number == updated["id_number"]
            connection.execute(table.update().where(where).values(full_name=updated["full_name"]))
            connection.execute(table.delete().where(table.c.id_number == deleted["id_number"]))
        self._people = [updated if each is before else each for each in self._people if each is not deleted]
        self._people.append(inserted)
        return [
            SourceChange("insert", None, self._masked(inserted, fields)),
            SourceChange("update", self._masked(before, fields), self._masked(updated, fields)),
            SourceChange("delete", self._masked(deleted, fields), None),
        ]

    def correct_name(self, number: str) -> None:
        """Change the surname of a person in the database."""
        before = next(each for each in self._people if each["id_number"] == number)
        corrected = {**before, "full_name": "阳" + str(before["full_name"])[1:]}  # a surname that nobody has
        table = sa.table("population", *map(sa.column, corrected))
        with self.database.engine.begin() as connection:
            where = table.c.id_number == number
            connection.execute(table.update().where(where).values(full_name=corrected["full_name"]))
        self._people = [corrected if each is before else each for each in self._people]

    def stop(self) -> None:
        """Stop the department's own server."""
        if self._database is not None:
            self._database.stop()

    @staticmethod
    def _masked(person: dict[str, object], fields: Sequence[str]) -> tuple[str, ...]:
        return tuple(_MASKS.get(name, str)(_text(person[name])) for name in fields)

    def _prepare(self, data: Path, folder: Path) -> None:
        del data
        fields = [field["name"] for field in json.loads(library.text("population"))["fields"]]
        dates = {"birth_date", "death_date"}
        flags = {"is_minor_under_14", "death_flag"}
        kinds = (sa.Date if name in dates else sa.Boolean if name in flags else sa.Text for name in fields)
        columns = [
            sa.Column(name, kind, primary_key=name == "id_number") for name, kind in zip(fields, kinds, strict=True)
        ]
        table = sa.Table("population", sa.MetaData(), *columns)
        self._database = SourceDatabase(folder / self.connector / "database")
        url = self._database.start()
        with self.database.engine.begin() as connection:
            table.create(connection)
            for chunk in _chunks(self._people, 5_000):
                connection.execute(table.insert(), chunk)
        reference = _reference(url, folder / self.connector, self.database.password)
        self._write_config(
            folder,
            {
                "source": {"kind": "sql", **reference, "cdc": {"slot": "exchange_population"}},
                "publish": [{"resource": self.topic, "table": "public.population", "mode": "cdc"}],
            },
        )


class CivilAffairs(_Department):
    """Provider with a CSV file in a drop folder, as office software writes it: GB18030, Chinese headings."""

    name, short_name, connector = "Civil Affairs 民政局", "民政局", "civil-organisations"
    topic, code, level = "legal-entity.v1", "102001/000001", "G4"
    sharing: ClassVar[dict[str, str]] = {"share_type": "unconditional"}

    def __init__(self, authorities: Authorities, count: int) -> None:
        super().__init__(authorities)
        self.count = count

    def _prepare(self, data: Path, folder: Path) -> None:
        del data
        labels = {field["name"]: field["zh"] for field in json.loads(library.text("legal_entity"))["fields"]}
        rows = list(organisations(self.count))
        drop = folder / self.connector / "drop"
        drop.mkdir(parents=True)
        with (drop / "社会组织.csv").open("w", encoding="gb18030", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([labels[name] for name in rows[0]])
            writer.writerows([[_text(value) for value in row.values()] for row in rows])
        (drop / "社会组织.csv.ok").touch()
        columns = {
            labels[name]: {
                "as": name,
                **({"true_values": ["true"], "false_values": ["false"]} if "flag" in name else {}),
            }
            for name in rows[0]
        }
        self._write_config(
            folder,
            {
                "source": {"kind": "files", "path": str(drop), "pattern": "*.csv", "ready_when": "marker .ok"},
                "publish": [{"resource": self.topic, "columns": columns}],
            },
        )


class HumanResources(_Department):
    """Consumer that requests four fields of one district's residents, into a table of its own."""

    name, short_name, connector = "Human Resources 人社局", "人社局", "labour-eligibility"
    fields = ("id_number", "full_name", "birth_date", "household_division_code")
    district = DISTRICTS[0]
    purpose, case = "eligibility", "养老待遇资格-2026"

    def submit_request(self, topic: str, row_filter: dict[str, object] | None = None) -> str:
        """Submit the share request and return its id.

        It writes no mask, so that each field is shown as the schema says. That the district's own code, which the
        schema masks, is told by the filter, is named as a disclosure; of another *row_filter* nothing is.
        """
        own = {
            "row_filter": {"op": "eq", "field": "household_division_code", "value": self.district},
            "filter_discloses": ["household_division_code"],
            "disclosure_reason": "只核查本区户籍人员的待遇资格",
        }
        return self.ask(topic, self.fields, **(own if row_filter is None else {"row_filter": row_filter}))

    def ask(self, topic: str, fields: Sequence[str], **terms: object) -> str:
        """File a request for fields of a resource and return its id."""
        now = datetime.now(UTC)
        body = {
            "topic": topic,
            "fields": list(fields),
            "purpose": self.purpose,
            "legal_basis": "中华人民共和国社会保险法 第七十四条",
            "case": self.case,
            "not_before": (now - timedelta(minutes=1)).isoformat(),
            "expires": (now + timedelta(days=180)).isoformat(),
            "history": "all",
            **terms,
        }
        return str(self.head.post("/requests", body)["id"])

    def fetch_all(self, folder: Path, programs: Programs, grant_id: str) -> None:
        """Run the connector once, to fetch into the department's own table."""
        self._write_config(
            folder,
            {
                "subscribe": [
                    {
                        "grant": grant_id,
                        "purpose": self.purpose,
                        "case": self.case,
                        "into": {
                            "kind": "sql",
                            **_reference(self._url, folder / self.connector, self._password),
                            "table": "residents",
                            "create_table": True,
                        },
                    }
                ]
            },
        )
        programs.connect("run", str(self.config), "--once")

    def delivered(self) -> dict[str, tuple[str, ...]]:
        """Return the valid rows of the department's table by the record's key; without the connector's own columns."""
        engine = sa.create_engine(self._url)
        query = "SELECT * FROM residents WHERE _deleted_at IS NULL ORDER BY _recorded_at, id_number"
        with engine.connect() as connection:
            rows = connection.execute(sa.text(query)).mappings().all()
        engine.dispose()
        return {
            row["_record_key"]: tuple(_text(value) for name, value in row.items() if not name.startswith("_"))
            for row in rows
        }

    def compare(self, expected: set[tuple[str, ...]]) -> list[str]:
        """Return the differences between the delivered and the granted rows, in words; empty if there are none."""
        engine = sa.create_engine(self._url)
        columns = [column["name"] for column in sa.inspect(engine).get_columns("residents")]
        engine.dispose()
        delivered = tuple(name for name in columns if not name.startswith("_"))
        differences = []
        if sorted(delivered) != sorted(self.fields):
            differences.append(f"fields: got {', '.join(delivered)}; expected {', '.join(self.fields)}")
            return differences
        order = [delivered.index(name) for name in self.fields]
        rows = [tuple(row[index] for index in order) for row in self.delivered().values()]
        if len(rows) != len(expected):
            differences.append(f"rows: got {len(rows)}; expected {len(expected)}")
        if set(rows) != expected:
            differences.append(f"{len(set(rows) ^ expected)} rows differ from what was generated")
        return differences

    def _prepare(self, data: Path, folder: Path) -> None:
        del folder
        self._url, self._password = _database(data, "labour")


def _database(data: Path, name: str) -> tuple[sa.URL, str]:
    """Create a database with its own role in the pool's server, in the place of a department's own system."""
    server = sa.make_url((data / "database-url").read_text().strip())
    password = secrets.token_urlsafe(24)
    engine = sa.create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sa.text(f"CREATE ROLE demo_{name} LOGIN PASSWORD '{password}'"))
        connection.execute(sa.text(f"CREATE DATABASE demo_{name} OWNER demo_{name}"))
    engine.dispose()
    return server.set(username=f"demo_{name}", password=password, database=f"demo_{name}"), password


def _reference(url: sa.URL, folder: Path, password: str) -> dict[str, str]:
    """Return the address without its password, and a reference to the password's file (mode 0600)."""
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    bare = sa.URL.create(url.drivername, url.username, None, url.host, url.port, url.database, url.query)
    return {"url": bare.render_as_string(), "password": f"${{file:{secret}}}"}


_MASKS: dict[str, Callable[[str], str]] = {
    "id_number": lambda number: number[:3] + "*" * (len(number) - 7) + number[-4:],
    "full_name": lambda name: name[0] + "*" * (len(name) - 1),
    "birth_date": lambda day: day[:4] + "-01-01",
    "household_division_code": lambda code: code[:4] + "00",
}


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value.isoformat() if isinstance(value, date) else str(value)


def _chunks(rows: Sequence[dict[str, object]], size: int) -> Iterator[list[dict[str, object]]]:
    for start in range(0, len(rows), size):
        yield list(rows[start : start + size])
