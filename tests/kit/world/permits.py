"""Permits between departments: one publishes them, others draw them into tables and folders by `pool-connect`."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tests.kit.world.publisher import Publisher, framed
from tests.kit.world.world import Office, World
from tests.torture.clerks import SCHEMA

PERMITS = ["permit_no", "version"]
EAST = {"op": "eq", "field": "district", "value": "东城"}
WEST = {"op": "eq", "field": "district", "value": "西城"}


class Permits:
    """A resource of a department, with one connector that publishes it."""

    def __init__(self, world: World, name: str, topic: str) -> None:
        self.world, self.topic = world, topic
        self.office = world.department(name)
        self.office.offer(topic, SCHEMA, level="G2")
        self.connect("source")

    def connect(self, connector: str, office: Office | None = None) -> None:
        """Enrol a connector that publishes, in a lane of its own."""
        office = office or self.office
        self.source = office.enrol(connector)
        self.lane = Publisher(self.source.pool_id, office.id, connector, self.topic, self.source.signing_key)

    def publish(self, versions: Mapping[str, int], district: str = "东城") -> None:
        """Publish permits of a district, each in a version."""
        with self.world.client(self.source) as pool:
            schema_id, text = pool.schema(self.lane.lane.topic)
            rows = [
                {"permit_no": name, "version": version, "district": district, "note": None}
                for name, version in versions.items()
            ]
            list(pool.publish(self.lane.lane.topic, [self.lane.batch(framed(schema_id, text, rows))]))

    def void(self, *names: str) -> None:
        """Publish the voids of permits."""
        with self.world.client(self.source) as pool:
            list(pool.publish(self.lane.lane.topic, [self.lane.voids([name.encode() for name in names])]))


class Drawer:
    """A connector of a department that draws what a grant delivers; each `draw` is a process."""

    def __init__(self, world: World, office: Office, connector: str, grant: str, into: dict[str, Any]) -> None:
        self.world, self.office, self.connector, self.grant, self.into = world, office, connector, grant, into
        self.identity = world.folder / "identities" / office.id / connector
        if not self.identity.exists():
            office.enrol(connector)
        self.state = world.folder / f"{office.id}-{connector}"
        self.state.mkdir(exist_ok=True)

    def configuration(self) -> Path:
        """Write the connector's configuration."""
        file = self.state / "connector.yaml"
        exchange = {"identity": str(self.identity), "gateway": self.world.addresses["gateway"]}
        section = {"grant": self.grant, "purpose": "eligibility", "case": "STANDING-1", "into": self.into}
        content = {"version": 1, "connector": self.connector, "exchange": exchange, "subscribe": [section]}
        file.write_text(json.dumps(content, ensure_ascii=False))
        return file

    def draw(self, *, code: int = 0) -> str:
        """Draw what there is; return what the connector said."""
        done = self.world.programs.run("pool-connect", "run", str(self.configuration()), "--once", check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr


def sql(folder: Path, url: sa.URL) -> dict[str, Any]:
    """Return the configuration of a table as the target; the password is in a file."""
    secret = folder / "target.password"
    secret.touch(mode=0o600)
    secret.write_text(str(url.password))
    address = url._replace(password=None).render_as_string()
    password = f"${{file:{secret}}}"
    return {"kind": "sql", "url": address, "password": password, "table": "permits", "create_table": True}


def table(url: sa.URL, name: str = "permits") -> dict[str, int]:
    """Return the version of each permit of a target that is not withdrawn."""
    engine = sa.create_engine(url)
    with engine.connect() as connection:
        rows = connection.exec_driver_sql(f"SELECT permit_no, version FROM {name} WHERE _deleted_at IS NULL")
        found: dict[str, int] = dict(map(tuple, rows))
    engine.dispose()
    return found
