"""Names of catalogue entries in the search's table, by which exact hits come first (ADR 0099)."""

import json

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql as pg

from registry.catalogue.search import normalized

revision = "0027"
down_revision = "0026"

_TABLE = "registry_catalogue_search"
_NAMES = sa.text("UPDATE registry_catalogue_search SET names = :names WHERE name = :name AND major = :major")
_METADATA = sa.text(
    "UPDATE registry_catalogue_search SET metadata_names = :names WHERE name = :name AND major = :major"
)
_IN_FORCE = sa.text(
    "SELECT r.name, r.major, v.body FROM registry_catalogue_record r JOIN registry_catalogue_record_version v"
    " ON v.name = r.name AND v.major = r.major AND v.version = (CAST(r.body AS json) ->> 'in_force')::int"
)


def upgrade() -> None:
    """Go on to this revision."""
    for column in ("names", "metadata_names"):
        op.add_column(_TABLE, sa.Column(column, pg.ARRAY(sa.Text()), nullable=False, server_default="{}"))
    connection = op.get_bind()
    for name, major, body in connection.execute(sa.text("SELECT name, major, body FROM registry_catalogue")).all():
        entry = json.loads(body)
        names = [*map(normalized, (name, entry["code"], entry["title"]))]
        connection.execute(_NAMES, {"name": name, "major": major, "names": names})
    for name, major, body in connection.execute(_IN_FORCE).all():
        title = json.loads(body)["metadata"].get("title_en", "")
        if title:
            connection.execute(_METADATA, {"name": name, "major": major, "names": [normalized(title)]})
