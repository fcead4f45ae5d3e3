"""Configuration schema of a connector: the model of one YAML file, validated strictly.

Every unknown key is an error with its line and column, and the key that was probably meant. The file holds secrets as
references only, `${env:NAME}` or `${file:/path}`: a literal password is an error of `lint`, so that a configuration can
be kept under version control and shown to a colleague. References are resolved when the connector runs; `lint` needs
neither network nor secrets.

    version: 1
    connector: civil-affairs-drop
    exchange: { gateway: "exchange.example:9443", identity: identity/ }
    source: { kind: files, path: drop/, pattern: "*.csv", ready_when: marker .ok, after_success: move to done/ }
    publish:
      - resource: low-income-household.v1
        columns:
          身份证号: { as: id_no }
    # or, on the other side
    subscribe:
      - grant: 0198…
        purpose: welfare-check
        into: { kind: sql, url: "postgresql+psycopg2://writer@db/ext", password: "${env:DB}", table: ext.household }

Relative paths start at the folder of the file.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import sqlalchemy as sa
from pydantic import AfterValidator, BaseModel, Field, model_validator

from connectors.config.publication_models import (
    ColumnConfig,
    DeletesConfig,
    DrawConfig,
    FormatConfig,
    IncrementalConfig,
    PagingConfig,
    PublishConfig,
    QuarantineConfig,
    RequestConfig,
    ScheduleConfig,
    StopAt,
)
from connectors.config.secret_references import is_reference
from connectors.config.source_models import (
    CdcConfig,
    CustomSource,
    FilesSource,
    HttpSourceConfig,
    OAuthConfig,
    PoolSourceConfig,
    SqlSourceConfig,
    WalLimitConfig,
)
from connectors.config.subscription_models import FileTarget, SqlTarget, SubscribeConfig, WebhookConfig
from connectors.config.value_types import Duration, StrictModel
from schemas.errors import InvalidError
from schemas.names import ConnectorId

__all__ = [
    "SECTIONS",
    "BatchConfig",
    "ConnectorConfig",
    "ExchangeConfig",
    "RetryConfig",
    "allowed_keys",
    "resolve_paths",
]


def _connector(value: str) -> str:
    try:
        ConnectorId(value)
    except InvalidError as error:
        raise ValueError(error.message) from error
    return value


class ExchangeConfig(StrictModel):
    """Address of the pool, and our identity. `gateway` overrides the address that enrolment stored.

    `succeeds`: id of a department that has merged into ours, and whose state this connector goes on with.
    """

    identity: Path
    gateway: str = ""
    succeeds: str = ""


class RetryConfig(StrictModel):
    """How long to retry without success."""

    give_up_after: Duration = 1800.0


class BatchConfig(StrictModel):
    """Limits of a published batch."""

    rows: int = Field(default=5_000, ge=1, le=10_000)
    in_flight: int = Field(default=4, ge=1, le=32)


class ConnectorConfig(StrictModel):
    """The configuration file."""

    version: Literal[1]
    connector: Annotated[str, AfterValidator(_connector)]
    exchange: ExchangeConfig
    state: Path = Path("state")
    source: (
        Annotated[
            FilesSource | SqlSourceConfig | HttpSourceConfig | PoolSourceConfig | CustomSource,
            Field(discriminator="kind"),
        ]
        | None
    ) = None
    publish: tuple[PublishConfig, ...] = ()
    subscribe: tuple[SubscribeConfig, ...] = ()
    batch: BatchConfig = BatchConfig()
    retry: RetryConfig = RetryConfig()
    failpoints: bool = False  # for fault tests: POOL_FAILPOINTS may make this process kill itself

    @model_validator(mode="after")
    def _check_consistency(self) -> Self:
        if not self.publish and not self.subscribe:
            raise ValueError("nothing to do: neither `publish:` nor `subscribe:`")
        if self.publish and self.source is None:
            raise ValueError("`publish:` needs a `source:`")
        for name, values in (
            ("resource", [each.resource for each in self.publish]),
            ("grant", [each.grant for each in self.subscribe]),
        ):
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise ValueError(f"the {name} {', '.join(sorted(twice))} is named twice")
        self._check_requests()
        self._check_draws()
        if isinstance(self.source, SqlSourceConfig):
            for each in self.publish:
                if bool(each.table) is bool(each.query):
                    raise ValueError(f"{each.resource} needs one of `table:` and `query:`")
                if each.query and not each.key:
                    raise ValueError(f"`query:` of {each.resource} needs `key:`, its unique columns")
                if each.key and each.page_by:
                    raise ValueError(f"{each.resource} has `key:` and `page_by:`; keep one of them")
        self._check_cursors()
        self._check_changes()
        return self

    def _check_cursors(self) -> None:
        for each in self.publish:
            if each.mode != "incremental":
                if each.cursor:
                    raise ValueError(f"{each.resource}: `cursor:` is for `mode: incremental`")
                if each.deletes.schedule:
                    raise ValueError(
                        f"{each.resource}: `deletes: {{ schedule: … }}` is for `mode: incremental`; write `schedule:`"
                    )
                continue
            if not isinstance(self.source, SqlSourceConfig) or not each.cursor:
                raise ValueError(
                    f"{each.resource}: `mode: incremental` needs a source of `kind: sql`, and `cursor:`, a column that "
                    "every change of a row sets"
                )
            if each.cursor_set_by == "application" and not each.deletes.detect:
                raise ValueError(
                    f"{each.resource}: rows whose cursor the application sets can be missed; `deletes: {{ detect: "
                    "false }` would leave them unpublished. Write `detect: true`"
                )

    def _check_requests(self) -> None:
        for each in self.publish:
            if isinstance(self.source, HttpSourceConfig) is not (each.request is not None):
                raise ValueError(f"{each.resource}: `request:` and a source of `kind: http` need each other")
            if each.request is not None and each.request.incremental is not None and each.replaces != "nothing":
                raise ValueError(f"{each.resource}: `incremental:` states what changed: it needs `replaces: nothing`")

    def _check_draws(self) -> None:
        for each in self.publish:
            if isinstance(self.source, PoolSourceConfig) is not (each.draw is not None):
                raise ValueError(f"{each.resource}: `draw:` and a source of `kind: pool` need each other")
            if each.draw is not None and (each.schedule or each.table or each.mode != "snapshot"):
                raise ValueError(
                    f"{each.resource}: a grant of another pool is followed all the time; leave out `schedule:`, "
                    "`table:` and `mode:`"
                )
        grants = [each.draw.grant for each in self.publish if each.draw is not None]
        if len(grants) > len(set(grants)):
            raise ValueError("a grant of the other pool is named twice; each has one position, so publish it once")

    def _check_changes(self) -> None:
        by_log = [each for each in self.publish if each.mode == "cdc"]
        if not by_log:
            return
        if not isinstance(self.source, SqlSourceConfig) or self.source.cdc is None:
            raise ValueError("`mode: cdc` needs a source of `kind: sql` with `cdc: { slot: NAME }`")
        url = self.source.url
        if not is_reference(url) and sa.make_url(url).get_backend_name() != "postgresql":
            raise ValueError("`mode: cdc` reads the log of PostgreSQL; for other databases use `mode: snapshot`")
        for each in by_log:
            if each.schedule is not None:
                raise ValueError(
                    f"{each.resource}: `schedule:` is for passes; `mode: cdc` follows the changes all the time"
                )
            if each.query or each.where or each.key or each.page_by:
                raise ValueError(
                    f"{each.resource}: `mode: cdc` publishes the changes of one table; `query:`, `where:`, `key:` and "
                    "`page_by:` are for `mode: snapshot`"
                )


def resolve_paths(config: ConnectorConfig, folder: Path) -> ConnectorConfig:
    """Return the configuration with its relative paths resolved from `folder`."""
    exchange = config.exchange.model_copy(update={"identity": folder / config.exchange.identity})
    updates: dict[str, Any] = {"exchange": exchange, "state": folder / config.state}
    if isinstance(config.source, FilesSource):
        updates["source"] = config.source.model_copy(update={"path": folder / config.source.path})
    if isinstance(config.source, PoolSourceConfig):
        updates["source"] = config.source.model_copy(update={"identity": folder / config.source.identity})
    if isinstance(config.source, HttpSourceConfig) and config.source.ca is not None:
        updates["source"] = config.source.model_copy(update={"ca": folder / config.source.ca})
    updates["subscribe"] = tuple(
        each.model_copy(update={"into": _resolved_target(each.into, folder)}) for each in config.subscribe
    )
    return config.model_copy(update=updates)


def _resolved_target(
    target: SqlTarget | FileTarget | WebhookConfig, folder: Path
) -> SqlTarget | FileTarget | WebhookConfig:
    if isinstance(target, SqlTarget):
        return target
    update = {"path": folder / target.path}
    if isinstance(target, WebhookConfig) and target.ca is not None:
        update["ca"] = folder / target.ca
    return target.model_copy(update=update)


def allowed_keys(model: type[BaseModel]) -> Sequence[str]:
    """Return the keys that a section of the file may have."""
    return [field.alias or name for name, field in model.model_fields.items()]


SECTIONS: Mapping[str, type[BaseModel]] = {
    "": ConnectorConfig,
    "exchange": ExchangeConfig,
    "source.files": FilesSource,
    "source.sql": SqlSourceConfig,
    "source.custom": CustomSource,
    "source.http": HttpSourceConfig,
    "source.http.oauth": OAuthConfig,
    "source.pool": PoolSourceConfig,
    "publish.draw": DrawConfig,
    "publish.request": RequestConfig,
    "publish.request.paging": PagingConfig,
    "publish.request.incremental": IncrementalConfig,
    "source.sql.cdc": CdcConfig,
    "source.sql.cdc.wal_limit": WalLimitConfig,
    "publish": PublishConfig,
    "publish.format": FormatConfig,
    "publish.format.stop_at": StopAt,
    "publish.columns": ColumnConfig,
    "publish.schedule": ScheduleConfig,
    "publish.deletes": DeletesConfig,
    "publish.deletes.schedule": ScheduleConfig,
    "publish.quarantine": QuarantineConfig,
    "subscribe": SubscribeConfig,
    "subscribe.into.sql": SqlTarget,
    "subscribe.into.jsonl": FileTarget,
    "subscribe.into.csv": FileTarget,
    "subscribe.into.parquet": FileTarget,
    "subscribe.into.webhook": WebhookConfig,
    "batch": BatchConfig,
    "retry": RetryConfig,
}
"""Section → its model; indices and column names are not part of a section's path."""
