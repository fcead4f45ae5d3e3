"""Tags of rows that carry authority; `pool migrate` tags the existing rows after this, once (ADR 0045)."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_TABLES = (
    "access_purpose",
    "identity_account",
    "identity_certificate",
    "identity_invitation",
    "identity_signing_key",
    "registry_approval",
    "registry_catalogue",
    "registry_catalogue_version",
    "registry_department",
    "registry_department_version",
    "registry_schema",
    "registry_subject",
)


def upgrade() -> None:
    """Go on to this revision."""
    # A version repeats the hashes of its schema, so that its tag covers them.
    op.add_column("registry_version", sa.Column("key", sa.LargeBinary(length=32), nullable=True))
    op.add_column("registry_version", sa.Column("shape", sa.LargeBinary(length=32), nullable=True))
    op.execute(
        "UPDATE registry_version AS v SET key = s.key, shape = s.shape FROM registry_schema AS s WHERE s.id = v.schema_id"
    )
    for table in (*_TABLES, "registry_version"):
        op.add_column(table, sa.Column("row_version", sa.BigInteger(), server_default=sa.text("0"), nullable=False))
        op.add_column(table, sa.Column("tag", sa.LargeBinary(length=32), nullable=True))
