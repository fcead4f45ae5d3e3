"""Facade of the pool: the services that gRPC, HTTP and the command line call.

identify / authenticate   a certificate or a token → who it is
publishing                check, append                    exchange/records/publish.py
recovery                  resume, sweep                    exchange/records/append_recovery.py
fetching                  describe, fetch, commit          exchange/records/fetch.py
fetching_together         fetches of several consumers     exchange/records/group_fetch.py
grants                    submit, approve, revoke …        exchange/control/grants/service.py
grant_reads               lists, one grant in words        exchange/control/grants/reads.py
return_flow               a lower level's own rows         exchange/control/grants/return_flow.py
request_reads             how requests were decided on     exchange/control/grants/request_reads.py
request_clocks            what has run out                 exchange/control/grants/request_clocks.py
grant_permissions         what a caller may do with one    exchange/control/grants/permissions.py
row_counter               rows that a grant keeps now       exchange/control/grants/row_count.py
administration            departments, catalogue           exchange/control/administration.py
catalogue                 reviews, updates, retirement     exchange/control/catalogue/entries.py
elements                  data elements, lead departments  exchange/control/catalogue/elements.py
element_use               elements that schemas name       exchange/control/catalogue/element_use.py
catalogue_export          DCAT 3                           exchange/control/catalogue/export.py
catalogue_search          words and facets                 exchange/control/catalogue/search.py
accounts                  accounts, invitations            exchange/control/accounts.py
connectors                reports, lists                   exchange/control/connectors.py
departments               rename, merge, deactivate        exchange/control/departments.py
zones                     network zones                     exchange/control/zones.py
duties                    duty lists of departments        exchange/control/duties/service.py
figures                   KPI, supervision events         exchange/control/oversight/figures.py
lineage                   source to consumers, batches     exchange/control/oversight/lineage.py
coverage                  departments, themes              exchange/control/oversight/coverage.py
corrections               tickets on doubted values        exchange/control/corrections/service.py
correction_reads          lists, notices, disputed marks   exchange/control/corrections/reads.py
correction_upkeep         overdue tickets, notices         exchange/control/corrections/upkeep.py
tasks                     what waits for whom              exchange/control/tasks/service.py
erasures                  propose, confirm, carry out      exchange/control/erasures.py
audit_queries             search, prove, checkpoint        exchange/control/audit_queries.py
evidence                  bundles of entries and proofs    exchange/control/evidence.py
audit_keys                keys of the trace, by month      exchange/control/audit_keys.py
restores                  settlement of a restore          exchange/control/restores.py
clock                     settle a jump of the clock       exchange/control/clock.py
rules                     calendars, rule profiles         exchange/control/rules.py
predicates                registered predicates            exchange/control/hub/predicates.py
violations                cases, decisions on them         exchange/control/violations/service.py
violation_detector        finds cases in the log           exchange/control/violations/detection.py
hub_rules                 who leads which field            exchange/control/hub/rules.py
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime

from exchange.access.decision.roles import decide_control
from exchange.authorization.attribute_sources import IdentityAttributes
from exchange.authorization.authentications import Authentications, Origin
from exchange.authorization.enforcement import Enforcer
from exchange.authorization.request_context import RequestContext
from exchange.authorization.schema_access import SchemaAccess
from exchange.control.accounts import AccountService
from exchange.control.administration import Administration
from exchange.control.audit_keys import AuditKeys
from exchange.control.audit_queries import AuditQueries
from exchange.control.catalogue.element_use import ElementUseService
from exchange.control.catalogue.elements import ElementService
from exchange.control.catalogue.entries import CatalogueService
from exchange.control.catalogue.export import CatalogueExport
from exchange.control.catalogue.search import CatalogueSearch
from exchange.control.clock import ClockService
from exchange.control.connectors import ConnectorService
from exchange.control.corrections.reads import CorrectionReads
from exchange.control.corrections.service import CorrectionService
from exchange.control.corrections.upkeep import CorrectionUpkeep
from exchange.control.departments import DepartmentService
from exchange.control.duties.service import DutyService
from exchange.control.erasures import ErasureService
from exchange.control.evidence import EvidenceBundles
from exchange.control.grants.permissions import GrantPermissions
from exchange.control.grants.reads import GrantReads
from exchange.control.grants.request_clocks import RequestClocks
from exchange.control.grants.request_reads import RequestReads
from exchange.control.grants.return_flow import ReturnFlow
from exchange.control.grants.row_count import RowCounter
from exchange.control.grants.service import GrantService
from exchange.control.grants.use import GrantUse
from exchange.control.hub.predicates import PredicateService
from exchange.control.hub.rules import HubRulesService
from exchange.control.oversight.coverage import CoverageService
from exchange.control.oversight.figures import FigureService
from exchange.control.oversight.lineage import LineageService
from exchange.control.restores import Restores
from exchange.control.rules import RuleService
from exchange.control.tasks.service import TaskService
from exchange.control.violations.detection import ViolationDetector
from exchange.control.violations.service import ViolationService
from exchange.control.zones import ZoneService
from exchange.identity.authority import CertificateAuthenticator
from exchange.identity.last_use import LastUse
from exchange.identity.tokens import Users, digest_of
from exchange.records.append_recovery import AppendRecovery
from exchange.records.fetch import FetchService
from exchange.records.group_fetch import GroupFetch
from exchange.records.publish import PublishService
from exchange.records.writer_schemas import WriterSchemas
from registry.database.unit_of_work import Database, Reader
from registry.governance.subject_rights import OPERATIONS
from schemas.access import Action, Actor, Allow, Deny
from schemas.errors import Reason, RefusedError
from schemas.names import Topic

__all__ = ["VERSION", "Greeting", "Pool"]

VERSION = "exchange-pool/0.1.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Greeting:
    """The pool's identity and time. Times in microseconds UTC."""

    pool_id: str
    version: str
    receipt_public_key: bytes
    server_time: int
    certificate_expires: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All services of one process; built by `exchange.server.composition`."""

    pool_id: str
    database: Database
    peers: CertificateAuthenticator
    users: Users
    authentications: Authentications
    enforcer: Enforcer
    identities: IdentityAttributes
    schemas: WriterSchemas
    schema_access: SchemaAccess
    publishing: PublishService
    recovery: AppendRecovery
    fetching: FetchService
    fetching_together: GroupFetch
    grants: GrantService
    grant_reads: GrantReads
    return_flow: ReturnFlow
    request_reads: RequestReads
    request_clocks: RequestClocks
    grant_permissions: GrantPermissions
    grant_use: GrantUse
    row_counter: RowCounter
    administration: Administration
    catalogue: CatalogueService
    elements: ElementService
    element_use: ElementUseService
    catalogue_export: CatalogueExport
    catalogue_search: CatalogueSearch
    departments: DepartmentService
    zones: ZoneService
    duties: DutyService
    corrections: CorrectionService
    correction_reads: CorrectionReads
    correction_upkeep: CorrectionUpkeep
    tasks: TaskService
    accounts: AccountService
    connectors: ConnectorService
    last_use: LastUse
    audit_queries: AuditQueries
    evidence: EvidenceBundles
    audit_keys: AuditKeys
    restores: Restores
    clock: ClockService
    rules: RuleService
    predicates: PredicateService
    figures: FigureService
    violations: ViolationService
    violation_detector: ViolationDetector
    hub_rules: HubRulesService
    lineage: LineageService
    coverage: CoverageService
    erasures: ErasureService
    receipt_public_key: bytes
    now: Callable[[], datetime]

    def identify(self, certificate: bytes) -> Actor:
        """Return the actor whom a client certificate identifies.

        Raises:
            RefusedError: NO_IDENTITY, CERTIFICATE_EXPIRED. Each decision checks for itself whether it is revoked.
        """
        return self.peers.authenticate(certificate, self.now())

    def authenticate(self, token: str, origin: Origin) -> Actor:
        """Return the actor whom a bearer token identifies.

        Raises:
            RefusedError: TOKEN_INVALID, also for another account than the origin states; CERTIFICATE_REVOKED, for a
                revoked account; TOKEN_EXPIRED.
            UnavailableError: TOO_MANY_FAILURES, the source or the account has to wait.
        """
        now = self.now()
        with self.authentications.attempt(origin, digest_of(token)):
            with self.database.read() as reader:
                actor = self.users.authenticate(reader, token, now)
            if origin.account and origin.account != actor.id:
                raise RefusedError(Reason.TOKEN_INVALID, "the token is another account's than the user name says")
        self.last_use.record(actor.id, now)
        return actor

    def hello(self, actor: Actor, call: RequestContext) -> Greeting:
        """Return the greeting for a connector: any holder of a certificate of this pool that is not revoked.

        Raises:
            RefusedError: the certificate is revoked, or its department inactive.
        """
        self._admit(actor, Action.DEPARTMENT_READ, actor.department, call)
        return Greeting(
            pool_id=self.pool_id,
            version=VERSION,
            receipt_public_key=self.receipt_public_key,
            server_time=int(self.now().timestamp() * 1_000_000),
            certificate_expires=int(self.identities.certificate_expires(actor).timestamp() * 1_000_000),
        )

    def require_standing(self, actor: Actor, call: RequestContext) -> None:
        """Refuse an actor whose certificate is revoked or whose department is inactive, with an entry.

        Raises:
            RefusedError: it is.
        """
        self._admit(actor, Action.DEPARTMENT_READ, actor.department, call)

    def latest_schema(self, actor: Actor, call: RequestContext, topic: Topic) -> tuple[int, str]:
        """Return id and text of a topic's latest schema; `SchemaAccess` decides, as it does for the registry.

        Raises:
            RefusedError: the certificate is revoked, or the actor may not read this schema or one that it refers to.
            InvalidError: SUBJECT_UNKNOWN.
        """
        with self._read_schema(actor, Action.SCHEMA_READ, topic.subject, call) as reader:
            schema_id, text = self.schemas.latest(reader, topic)
            self._require_references(actor, call, self.schemas.referenced(reader, schema_id))
            return schema_id, text

    def schema_by_id(self, actor: Actor, call: RequestContext, schema_id: int) -> tuple[int, str]:
        """Return the text of a schema id; `SchemaAccess` decides, as it does for the registry.

        Raises:
            RefusedError: the certificate is revoked, or the actor may not read this schema or one that it refers to.
            InvalidError: SCHEMA_UNKNOWN.
        """
        standing = decide_control(actor, Action.SCHEMA_READ_BY_ID, standing=self.identities.standing_now(actor))
        self.enforcer.admit(actor, Action.SCHEMA_READ_BY_ID, str(schema_id), call, standing)
        with self.database.read() as reader:
            origin, others = self.schemas.subjects_of(reader, schema_id)
        subject = self.schema_access.readable_subject(actor, origin, lambda: others)
        with self._read_schema(actor, Action.SCHEMA_READ_BY_ID, subject, call) as reader:
            self._require_references(actor, call, self.schemas.referenced(reader, schema_id))
            return schema_id, self.schemas.text(reader, schema_id)

    @contextmanager
    def _read_schema(self, actor: Actor, action: Action, subject: str, call: RequestContext) -> Iterator[Reader]:
        """Open a read under a subject, after its entry where it leaves one."""
        decision: Allow | Deny = decide_control(actor, action, standing=self.identities.standing_now(actor))
        if decision:
            decision = self.schema_access.decide(actor, OPERATIONS[action], subject)
        if self.schema_access.is_recorded(subject):
            with self.enforcer.announce(actor, action, subject, call, decision), self.database.read() as reader:
                yield reader
            return
        self.enforcer.admit(actor, action, subject, call, decision)
        with self.database.read() as reader:
            yield reader

    def _require_references(self, actor: Actor, call: RequestContext, subjects: Iterable[str]) -> None:
        """Refuse an actor who may not read everything that a schema refers to: its text is written out in full."""
        for subject in subjects:
            with self._read_schema(actor, Action.SCHEMA_READ, subject, call):
                pass

    def _admit(self, actor: Actor, action: Action, resource: str, call: RequestContext) -> None:
        decision = decide_control(actor, action, standing=self.identities.standing_now(actor))
        self.enforcer.admit(actor, action, resource, call, decision)
