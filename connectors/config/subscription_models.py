"""Models of the section `subscribe`: one grant whose records are fetched, and the target that they are written to."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from connectors.config.value_types import DatabaseConfig, Duration, Secret, StrictModel, WebUrl

__all__ = [
    "FileTarget",
    "SqlTarget",
    "SubscribeConfig",
    "WebhookConfig",
]


class SqlTarget(DatabaseConfig):
    """A table (`connectors.sinks.sql`)."""

    kind: Literal["sql"]
    table: str
    create_table: bool = False
    add_columns: bool = False
    deletes: Literal["soft", "hard"] = "soft"


class FileTarget(StrictModel):
    """A folder of parts (`connectors.sinks.files`)."""

    kind: Literal["jsonl", "csv", "parquet"]
    path: Path
    encoding: Literal["utf-8", "utf-8-sig", "gb18030"] = "utf-8"
    neutralise_formulas: bool = False
    readable_by: Literal["owner", "group"] = "owner"


class WebhookConfig(StrictModel):
    """An address to which records are posted (`connectors.sinks.webhook`)."""

    kind: Literal["webhook"]
    url: WebUrl
    secret: Secret
    ca: Path | None = None
    batch: int = Field(default=100, ge=1, le=1_000)
    timeout: Duration = 30.0
    path: Path = Path("state/webhooks")


class SubscribeConfig(StrictModel):
    """One grant whose records are fetched."""

    grant: str
    purpose: str
    case: str = ""
    into: Annotated[SqlTarget | FileTarget | WebhookConfig, Field(discriminator="kind")]
    batch_rows: int = Field(default=5_000, ge=1, le=10_000)
    wait: Duration = 20.0
