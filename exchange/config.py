"""Configuration of a pool: one file, `pool.toml` in the data folder, read once, typed and frozen.

Unknown keys are errors. The file contains no secrets: it names files, and the database's address is given as
`${file:PATH}` or `${env:NAME}`. Without a database the embedded PostgreSQL is used; without a broker the records are
stored in the same PostgreSQL.
"""

import os
import re
import tomllib
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from registry.governance.subject_rights import Profile, Right, Rights
from schemas.errors import InvalidError, Reason

if TYPE_CHECKING:
    from registry.governance.case_form import CaseForm

__all__ = [
    "Accounts",
    "Address",
    "Audit",
    "BrokerSettings",
    "Config",
    "Embedded",
    "Grants",
    "KafkaBroker",
    "Limits",
    "Listen",
    "PostgresBroker",
    "Quotas",
    "Registry",
    "RegistryRight",
    "Roles",
    "host_of",
    "with_port",
]

_REFERENCE = re.compile(r"\$\{(?P<kind>env|file):(?P<name>[^}]+)\}")
_ADDRESS = r"^(\[[0-9a-fA-F:]+\]|[A-Za-z0-9.-]+):[0-9]{1,5}$"

_EVERY_ADDRESS = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 - listened on, and called by nobody

Address = Annotated[str, Field(pattern=_ADDRESS)]
"""`host:port`; with port 0 the system chooses one."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Listen(_Section):
    """Addresses of the listeners. All but `enrolment` and `metrics` require a client certificate or a bearer token."""

    grpc: Address = "127.0.0.1:7443"  # mutual TLS: publish, fetch, commit
    enrolment: Address = "127.0.0.1:7444"  # TLS without a client certificate: one-time tokens only
    http: Address = "127.0.0.1:7080"  # TLS with bearer tokens: control
    registry: Address = "127.0.0.1:8081"  # TLS with bearer tokens: Confluent's REST API
    metrics: Address | None = None  # plain, loopback only: Prometheus, livez, readyz


class GatewayListen(_Section):
    """Addresses of a process of the role gateway alone, where they differ from `[listen]`."""

    grpc: Address | None = None
    enrolment: Address | None = None
    http: Address | None = None
    metrics: Address | None = None


class RegistryListen(_Section):
    """Addresses of a process of the role registry alone."""

    registry: Address | None = None
    metrics: Address | None = None


class ControlListen(_Section):
    """Addresses of a gateway's process that serves people and enrolment alone (`processes = "several"`)."""

    enrolment: Address | None = None
    http: Address | None = None
    metrics: Address | None = None


class SequencerListen(_Section):
    """Addresses of a process of the role sequencer alone."""

    metrics: Address | None = None


class GatewayRole(_Section):
    """What differs where a gateway is a process of its own."""

    listen: GatewayListen = GatewayListen()


class RegistryRole(_Section):
    """What differs where a registry is a process of its own."""

    listen: RegistryListen = RegistryListen()


class ControlRole(_Section):
    """What differs where the control API is a process of its own."""

    listen: ControlListen = ControlListen()


class SequencerRole(_Section):
    """What differs where a sequencer is a process of its own."""

    listen: SequencerListen = SequencerListen()


class Roles(_Section):
    """What differs where roles are processes of their own, by role: on one machine two cannot have one address."""

    gateway: GatewayRole = GatewayRole()
    registry: RegistryRole = RegistryRole()
    control: ControlRole = ControlRole()
    sequencer: SequencerRole = SequencerRole()


class PostgresBroker(_Section):
    """Records in the pool's own PostgreSQL."""

    kind: Literal["postgres"] = "postgres"


class KafkaBroker(_Section):
    """Records in Apache Kafka, over mutual TLS."""

    kind: Literal["kafka"]
    bootstrap: str
    authority: Path  # PEM of Kafka's own certificate authority
    certificate: Path  # PEM of the gateway's client certificate
    key: Path  # PEM, mode 0600
    replication: int = 3
    refuse_unsafe_versions: bool | None = None  # None: refuse where replication is 1, else warn


BrokerSettings = Annotated[PostgresBroker | KafkaBroker, Field(discriminator="kind")]


def _default_workers() -> int:
    """Return one engine process where there is a second processor for it, else none (ADR 0027)."""
    return 1 if len(os.sched_getaffinity(0)) > 1 else 0


class Limits(_Section):
    """Limits of one gateway."""

    threads: int = Field(16, ge=2, le=256)  # calls of all listeners that run at once
    department_threads: int = Field(2, ge=1, le=256)  # of these, calls of one department that is alone
    contended_threads: int = Field(1, ge=1, le=256)  # of these, calls of one department beside others
    department_waiting: int = Field(1_000, ge=16)  # calls of one department that wait for their turn
    # Engine processes; 0: codec work runs in the gateway's own threads.
    workers: int = Field(default_factory=_default_workers, ge=0, le=64)
    streams: int = Field(4000, ge=1)  # concurrent gRPC calls, divided among departments
    requests: int = Field(128, ge=8)  # concurrent requests of the control API, divided among accounts
    connections: int = Field(4000, ge=16)  # of each listener
    connections_per_source: int = Field(1000, ge=4)  # of these, from one address
    enrolments_per_minute: int = Field(120, ge=1)  # calls at the enrolment listener from one address
    waiting_mb: int = Field(512, ge=64)  # memory of all streams for batches that were read and not answered
    replies_mb: int = Field(256, ge=64)  # memory of all answers of fetches that their consumers have not taken
    repeats_per_minute: int = Field(120, ge=1)  # releases of one grant from a position that was released before
    # Budgets of each actor: beyond them it is slowed (`exchange.authorization.actor_budgets`)
    refusals_per_minute: int = Field(120, ge=1)  # calls that are refused
    entries_per_minute: int = Field(1_200, ge=1)  # acts of the control API, and reads with an entry of their own
    schemas_per_minute: int = Field(12_000, ge=1)  # acts on the registry's schemas

    @property
    def per_minute(self) -> dict[str, int]:
        """Return the budgets of an actor by name."""
        return {
            "refusals": self.refusals_per_minute,
            "entries": self.entries_per_minute,
            "schemas": self.schemas_per_minute,
        }


class Audit(_Section):
    """Rules of the audit log that a pool may set."""

    unsigned_seconds: int = Field(60, ge=5, le=86_400)  # of the oldest unsigned entry; beyond it nothing is released


class Embedded(_Section):
    """The embedded PostgreSQL."""

    restart_seconds: int = Field(300, ge=1, le=86_400)  # of an outage; then the process ends with the code 75


class Quotas(_Section):
    """What one department may have at a time, and how many departments a pool may have."""

    requests: int = Field(1_000, ge=1)  # its share requests that wait for a decision
    grants: int = Field(10_000, ge=1)  # its grants that are in force or suspended, and those requests
    catalogue_entries: int = Field(2_000, ge=1)  # archived ones too
    accounts: int = Field(1_000, ge=1)  # in use
    departments: int = Field(5_000, ge=1)  # of the pool


class Grants(_Section):
    """Rules of grants that a pool may set."""

    # For so long a grant may show unmasked what no request wrote out, once both parties were told; then it is suspended
    unmasked_days: int = Field(30, ge=1, le=365)


class Accounts(_Section):
    """Accounts of people."""

    token_days: int = Field(90, ge=1, le=90)  # for which a token is valid


class RegistryRight(_Section):
    """A right on subjects of the registry, beside the rights of a role."""

    who: str  # account:NAME, connector:DEPARTMENT/NAME, department:ID, role:ROLE or *
    operations: tuple[str, ...]  # read, read_by_id, register, configure, delete, ask
    subjects: tuple[str, ...]  # patterns; * stands for any text


class Registry(_Section):
    """Behaviour of the schema registry, where Confluent's registry and Karapace differ; rights on its subjects."""

    error_dialect: Literal["confluent", "karapace"] = "confluent"  # the error messages that clients compare
    validate_new_schemas: bool = True  # names, defaults and logical types too
    strict_logical_types: bool = False  # a changed scale, precision or time unit is incompatible
    topic: str | None = Field(None, pattern=r"^[a-zA-Z0-9._-]{1,249}$")  # of schemas, where the broker is Kafka
    profile: Profile = Profile.CATALOGUE  # what every account may do without a right
    restricted: tuple[str, ...] = ()  # patterns of subjects that always need a right; each read is recorded
    rights: tuple[RegistryRight, ...] = ()

    def as_rights(self) -> Rights:
        """Return the rights.

        Raises:
            InvalidError: CONFIG_INVALID, naming the invalid part.
        """
        listed = tuple(Right.parse(one.who, one.operations, one.subjects) for one in self.rights)
        return Rights(profile=self.profile, rights=listed, restricted=self.restricted)


class Config(_Section):
    """All settings of a process.

    Attributes:
        folder: data folder; relative paths start from it.
        pool_id: part of every certificate, signature and entry; never changes.
        origin: the log's origin line (C2SP checkpoint), such as `pool.example.gov/audit`.
        gateway: host:port of the gateway, as departments call it.
        enrolment: host:port of the enrolment listener, as invitations name it; None = the host of `gateway`, and the
            port of `listen.enrolment`.
        processes: of `pool serve` without a role: "one" for everything, or "several": the control API with enrolment,
            and the registry, are processes of their own, which the first one starts and watches.
        case_forms: by purpose, the form of its case numbers (`registry.governance.case_form`).
        failpoints: whether POOL_FAILPOINTS may make this process kill itself; for fault tests only.
    """

    folder: Path
    pool_id: str
    name: str = "Data Exchange Pool"
    origin: str
    gateway: Address
    enrolment: Address | None = None
    dev: bool = False
    database: str | None = None
    processes: Literal["one", "several"] = "one"
    listen: Listen = Listen()
    roles: Roles = Roles()
    broker: BrokerSettings = PostgresBroker()
    limits: Limits = Limits()
    audit: Audit = Audit()
    embedded: Embedded = Embedded()
    quotas: Quotas = Quotas()
    grants: Grants = Grants()
    accounts: Accounts = Accounts()
    registry: Registry = Registry()
    case_forms: dict[str, str] = Field(default_factory=dict)  # purpose → form of its case numbers
    failpoints: bool = False

    @field_validator("enrolment")
    @classmethod
    def _can_be_called(cls, address: str | None) -> str | None:
        if address is not None and host_of(address) in _EVERY_ADDRESS:
            raise ValueError(f"got {address}, which nobody can call; expected the host as departments reach it")
        return address

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read `folder/pool.toml`.

        Raises:
            InvalidError: CONFIG_INVALID, naming the file, the key and what was expected.
        """
        file = folder / "pool.toml"
        try:
            content = tomllib.loads(file.read_text())
        except FileNotFoundError as error:
            raise InvalidError(
                Reason.CONFIG_INVALID, f"{folder} is no pool's folder; make one with `pool init --data {folder}`"
            ) from error
        except (tomllib.TOMLDecodeError, OSError) as error:
            raise InvalidError(Reason.CONFIG_INVALID, f"{file}: {error}") from error
        try:
            return cls(folder=folder.resolve(), **content)
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc'])) or 'file'}: {fault['msg']}"
                for fault in error.errors(include_input=False, include_url=False)
            )
            raise InvalidError(Reason.CONFIG_INVALID, f"{file}: {faults}") from error

    def of_roles(self, roles: Collection[str]) -> Self:
        """Return the configuration of a process of these roles: the addresses of the roles' sections go before.

        Where several roles name an address of one listener, the first of control, gateway, registry, sequencer counts.
        """
        listen = self.listen.model_dump()
        for name in ("sequencer", "registry", "gateway", "control"):
            if name in roles:
                listen |= getattr(self.roles, name).listen.model_dump(exclude_none=True)
        return self.model_copy(update={"listen": Listen(**listen)})

    def of_child(self, name: str) -> Self:
        """Return the configuration of a process that `pool serve` starts beside itself.

        Without an address of its own for the metrics it takes any that is free: `ports.json` names it.
        """
        listen = self.listen.model_dump()
        if listen["metrics"] is not None:
            listen["metrics"] = f"{host_of(listen['metrics'])}:0"
        return self.model_copy(update={"listen": Listen(**listen)}).of_roles([name])

    def invitation_address(self, listening: str) -> str:
        """Return host:port that an invitation carries.

        Args:
            listening: where the enrolment listener is bound; its host may be every address of the machine.
        """
        port = int(listening.rsplit(":", 1)[1])
        return with_port(self.enrolment or f"{host_of(self.gateway)}:0", port)

    def server_names(self) -> list[str]:
        """Return the names and addresses under which the listeners are called, for their certificate."""
        addresses: list[str | None] = [self.gateway, self.enrolment]
        for listen in (self.listen, *(getattr(self.roles, name).listen for name in Roles.model_fields)):
            addresses += [value for name, value in listen.model_dump().items() if name != "metrics"]
        called = (host_of(one) for one in addresses if one is not None)
        local = ("localhost", "127.0.0.1", "::1")
        return list(dict.fromkeys([*(one.strip("[]") for one in called if one not in _EVERY_ADDRESS), *local]))

    def parsed_case_forms(self) -> "dict[str, CaseForm]":
        """Return the forms of case numbers, by purpose.

        Raises:
            InvalidError: CONFIG_INVALID, naming the form.
        """
        from registry.governance.case_form import CaseForm  # noqa: PLC0415 - commands that read an address need no Arrow

        return {purpose: CaseForm.parse(form) for purpose, form in self.case_forms.items()}

    @property
    def database_url(self) -> str | None:
        """The database's address with its reference resolved; None = embedded.

        Raises:
            InvalidError: CONFIG_INVALID, the reference is to nothing, or the file contains an address with a password.
        """
        if self.database is None:
            return None
        match = _REFERENCE.fullmatch(self.database)
        if match is None:
            raise InvalidError(
                Reason.CONFIG_INVALID,
                "database: got an address in the file; expected ${file:PATH} or ${env:NAME}, for it holds a password",
            )
        if match["kind"] == "env":
            value = os.environ.get(match["name"])
        else:
            path = self.folder / match["name"]
            value = path.read_text() if path.exists() else None
        if not value:
            raise InvalidError(Reason.CONFIG_INVALID, f"database: {self.database} leads to nothing; set it")
        return value.strip()

    def path(self, *parts: str) -> Path:
        """Return a path below the data folder."""
        return self.folder.joinpath(*parts)


def host_of(address: str) -> str:
    """Return the host of host:port; an IPv6 address with its brackets."""
    return address.rsplit(":", 1)[0]


def with_port(address: str, port: int) -> str:
    """Return the address with the port that the system chose, where it leaves the port open (0)."""
    host, configured = address.rsplit(":", 1)
    return f"{host}:{port}" if configured == "0" else address
