"""Access control types: actors, actions, grants, row filters, and the result of a decision.

A grant is a closed, immutable version: every dimension in which access is limited is a field of it, and what is
not in it is not granted. Its canonical JSON is hashed, and the audit entry that created the version holds the hash.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum
from typing import Literal, TypeAlias

from schemas.errors import Reason
from schemas.names import Topic

__all__ = [
    "AccessMode",
    "Action",
    "Actor",
    "ActorKind",
    "AllOf",
    "Allow",
    "AnyOf",
    "CaseRule",
    "Compare",
    "Deny",
    "Exists",
    "FilterValue",
    "Grant",
    "GrantState",
    "History",
    "Level",
    "MaskRule",
    "Member",
    "Not",
    "Prefix",
    "Range",
    "Role",
    "RowFilter",
]

FilterValue: TypeAlias = str | int | bool
"""A value in a row filter: text, a whole number or a truth value. Dates are ISO 8601 text, decimals decimal text."""


class Level(IntEnum):
    """Grade of data (GB/T 43697-2024: general, split 1 to 4, then important); the higher wins."""

    G1 = 1
    G2 = 2
    G3 = 3
    G4 = 4
    IMP = 5


class MaskRule(StrEnum):
    """Mask of a field in the view. Any other name in a grant is refused, never ignored."""

    NONE = "none"
    DROP = "drop"  # the field is absent from the view
    KEEP_3_4 = "keep_3_4"  # 110***********002X
    NAME_FIRST = "name_first"  # 王**
    PHONE_3_4 = "phone_3_4"  # 138****5678
    YEAR_ONLY = "year_only"  # kept as a date, 1 January
    DIV_CITY = "div_city"  # first 4 of 6 digits


class ActorKind(StrEnum):
    """Whether a person or a program acts, so that look-ups of the two can be counted apart."""

    HUMAN = "human"
    MACHINE = "machine"


class Role(StrEnum):
    """Role of an account; each account has one.

    Separation of duties: an operator neither approves nor reads payload, a requester never approves, an auditor
    writes nothing.
    """

    CATALOGUE_EDITOR = "catalogue_editor"
    SHARING_OFFICE_HEAD = "sharing_office_head"
    SECURITY_OFFICER = "security_officer"
    DATA_AUTHORITY = "data_authority"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    CONNECTOR = "connector"
    BOOTSTRAP = "bootstrap"  # the token that `pool init` makes: it adds the first two data authorities


class Action(StrEnum):
    """Action that the enforcer decides on, as `scope:resource:act`; audit entries hold the same text."""

    DEPARTMENT_REGISTER = "registry:department:register"
    DEPARTMENT_READ = "registry:department:read"
    DEPARTMENT_CHANGE = "registry:department:change"
    DEPARTMENT_SUCCEED = "registry:department:succeed"
    DEPARTMENT_INVITE = "identity:department:invite"
    CONNECTOR_ENROL = "identity:connector:enrol"
    CONNECTOR_RENEW = "identity:connector:renew"
    CONNECTOR_REVOKE = "identity:connector:revoke"
    CONNECTOR_REPORT = "identity:connector:report"
    CONNECTOR_RECONCILE = "identity:connector:reconcile"
    USER_ADD = "identity:user:add"
    USER_READ = "identity:user:read"
    USER_ROTATE = "identity:user:rotate"
    USER_REVOKE = "identity:user:revoke"
    PROPOSAL_CONFIRM = "identity:proposal:confirm"
    PROPOSAL_REFUSE = "identity:proposal:refuse"
    CONNECTOR_READ = "identity:connector:read"
    DUTY_CHANGE = "registry:duty:change"
    DUTY_READ = "registry:duty:read"
    CATALOGUE_DRAFT = "registry:catalogue:draft"
    CATALOGUE_PUBLISH = "registry:catalogue:publish"
    CATALOGUE_ARCHIVE = "registry:catalogue:archive"
    CATALOGUE_RETAIN = "registry:catalogue:retain"
    CATALOGUE_ZONE = "registry:catalogue:zone"
    CATALOGUE_READ = "registry:catalogue:read"
    CATALOGUE_SUBMIT = "registry:catalogue:submit"
    CATALOGUE_APPROVE = "registry:catalogue:approve"
    CATALOGUE_RETURN = "registry:catalogue:return"
    CATALOGUE_CHANGE = "registry:catalogue:change"
    CATALOGUE_EXTEND = "registry:catalogue:extend"
    CATALOGUE_SUSPEND = "registry:catalogue:suspend"
    CATALOGUE_RESUME = "registry:catalogue:resume"
    CATALOGUE_ANNOUNCE = "registry:catalogue:announce"
    CATALOGUE_WITHDRAW = "registry:catalogue:withdraw"
    ELEMENT_DEFINE = "registry:element:define"
    ELEMENT_LEAD = "registry:element:lead"
    ELEMENT_READ = "registry:element:read"
    SCHEMA_REGISTER = "registry:schema:register"
    SCHEMA_READ = "registry:schema:read"
    SCHEMA_READ_BY_ID = "registry:schema:read_by_id"
    SCHEMA_CONFIGURE = "registry:schema:configure"
    SCHEMA_DELETE = "registry:schema:delete"
    APPROVAL_ASK = "registry:approval:ask"
    APPROVAL_DECIDE = "registry:approval:decide"
    GRANT_SUBMIT = "exchange:grant:submit"
    GRANT_CONFIRM = "exchange:grant:confirm"
    GRANT_APPROVE = "exchange:grant:approve"
    GRANT_PROVISION = "exchange:grant:provision"
    GRANT_REJECT = "exchange:grant:reject"
    GRANT_SUSPEND = "exchange:grant:suspend"
    GRANT_RESUME = "exchange:grant:resume"
    GRANT_TERMINATE = "exchange:grant:terminate"
    GRANT_EXPIRE = "exchange:grant:expire"
    GRANT_REMIND = "exchange:grant:remind"
    GRANT_SUSPEND_UNMASKED = "exchange:grant:suspend_unmasked"
    GRANT_SUPERSEDE = "exchange:grant:supersede"
    GRANT_SUCCEED = "exchange:grant:succeed"
    GRANT_COUNTERSIGN = "exchange:grant:countersign"
    GRANT_WITHDRAW_SIGNATURE = "exchange:grant:withdraw_signature"
    GRANT_CONCLUDE = "exchange:grant:conclude"
    GRANT_COMPLETE = "exchange:grant:complete"
    GRANT_CHANGE_SERVICE = "exchange:grant:change_service"
    GRANT_END_BY_AGREEMENT = "exchange:grant:terminate_by_agreement"
    REQUEST_NEED_MORE = "exchange:request:need_more"
    REQUEST_RESUBMIT = "exchange:request:resubmit"
    REQUEST_LAPSE = "exchange:request:lapse"
    REQUEST_WITHDRAW = "exchange:request:withdraw"
    REQUEST_EXTEND = "exchange:request:extend"
    REQUEST_OVERDUE = "exchange:request:overdue"
    REQUEST_DISPUTE = "exchange:request:dispute"
    REQUEST_UPHOLD = "exchange:request:uphold"
    REQUEST_OVERTURN = "exchange:request:overturn"
    GRANT_READ = "exchange:grant:read"
    PUBLISH = "exchange:records:publish"
    RESUME = "exchange:lane:resume"
    FETCH = "exchange:records:fetch"
    COMMIT = "exchange:records:commit"
    ERASURE_PROPOSE = "exchange:erasure:propose"
    ERASURE_CONFIRM = "exchange:erasure:confirm"
    ERASURE_REJECT = "exchange:erasure:reject"
    ERASURE_COMPLETE = "exchange:erasure:complete"
    ERASURE_READ = "exchange:erasure:read"
    VIOLATION_DETECT = "exchange:violation:detect"
    VIOLATION_REPORT = "exchange:violation:report"
    VIOLATION_READ = "exchange:violation:read"
    VIOLATION_CONFIRM = "exchange:violation:confirm"
    VIOLATION_DISMISS = "exchange:violation:dismiss"
    VIOLATION_ORDER = "exchange:violation:order"
    VIOLATION_REPLY = "exchange:violation:reply"
    VIOLATION_ACCEPT = "exchange:violation:accept"
    VIOLATION_ESCALATE = "exchange:violation:escalate"
    VIOLATION_CLOSE = "exchange:violation:close"
    AUDIT_READ = "audit:log:read"
    AUDIT_PROVE = "audit:log:prove"
    AUDIT_EXPORT = "audit:log:export"
    AUDIT_KEYS_READ = "audit:keys:read"
    AUDIT_KEYS_PROPOSE = "audit:keys:propose"
    AUDIT_KEYS_PRUNE = "audit:keys:prune"
    RESTORE_READ = "pool:restore:read"
    RESTORE_PROPOSE = "pool:restore:propose"
    RESTORE_SETTLE = "pool:restore:settle"
    CLOCK_READ = "audit:clock:read"
    CLOCK_PROPOSE = "audit:clock:propose"
    CLOCK_SETTLE = "audit:clock:settle"
    REQUEST_CHECK = "exchange:request:check"
    REQUEST_DRAFT = "exchange:request:draft"
    REQUEST_SCREEN = "pool:request:screen"
    RULES_READ = "pool:rules:read"
    RULES_PROPOSE = "pool:rules:propose"
    RULES_CONFIRM = "pool:rules:confirm"
    RULES_REJECT = "pool:rules:reject"
    CORRECTION_OPEN = "exchange:correction:open"
    CORRECTION_READ = "exchange:correction:read"
    CORRECTION_REVEAL = "exchange:correction:reveal"
    CORRECTION_ACCEPT = "exchange:correction:accept"
    CORRECTION_TRANSFER = "exchange:correction:transfer"
    CORRECTION_WITHDRAW = "exchange:correction:withdraw"
    CORRECTION_CORRECT = "exchange:correction:correct"
    CORRECTION_CONFIRM = "exchange:correction:confirm"
    CORRECTION_REFUSE = "exchange:correction:cannot_verify"
    CORRECTION_NOTIFY = "exchange:correction:notify"
    CORRECTION_OVERDUE = "exchange:correction:overdue"
    CORRECTION_ACKNOWLEDGE = "exchange:correction:acknowledge"
    REPORT_READ = "exchange:report:read"
    SUPERVISION_READ = "exchange:supervision:read"
    TASK_READ = "exchange:task:read"
    # The shared-records hub (共享库). Acts on subjects under a grant, then those of its rules and consents.
    HUB_LOOKUP = "hub:subject:lookup"
    HUB_VERIFY = "hub:subject:verify"
    HUB_PREFILL = "hub:subject:prefill"
    HUB_INSTANT = "hub:case:instant"
    HUB_OWN = "hub:subject:own"
    HUB_ERASE = "hub:subject:erase"
    HUB_REWRAP = "hub:key:rewrap"
    HUB_RULES_READ = "hub:rules:read"
    HUB_RULES_PROPOSE = "hub:rules:propose"
    HUB_RULES_AGREE = "hub:rules:agree"
    HUB_RULES_ACTIVATE = "hub:rules:activate"
    HUB_RULES_REPLAY = "hub:rules:replay"
    HUB_RULES_BACK_OUT = "hub:rules:back_out"
    HUB_PREDICATE_READ = "hub:predicate:read"
    HUB_PREDICATE_PROPOSE = "hub:predicate:propose"
    HUB_PREDICATE_CONFIRM = "hub:predicate:confirm"
    HUB_PREDICATE_REJECT = "hub:predicate:reject"
    HUB_CONSENT_GIVE = "hub:consent:give"
    HUB_CONSENT_WITHDRAW = "hub:consent:withdraw"


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """The person or program that acts.

    Attributes:
        kind: person or program.
        id: account name, or the connector's name within its department.
        department: internal id (UUID); empty for accounts of the pool itself.
        role: one role, never several.
        zone: network zone of the actor; in acts on records that of its department now, else "default".
        on_behalf_of: staff pseudonym of the person for whom a program acts, if stated.
        certificate: serial number of the certificate, hexadecimal; empty for people.
    """

    kind: ActorKind
    id: str
    department: str
    role: Role
    zone: str = "default"
    on_behalf_of: str | None = None
    certificate: str = ""


@dataclass(frozen=True, slots=True)
class Compare:
    """`field` equals (or differs from) `value`."""

    op: Literal["eq", "ne"]
    field: str
    value: FilterValue


@dataclass(frozen=True, slots=True)
class Member:
    """`field` is one of `values`."""

    field: str
    values: tuple[FilterValue, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """`low` ≤ `field` < `high`; a bound that is None does not limit."""

    field: str
    low: FilterValue | None
    high: FilterValue | None


@dataclass(frozen=True, slots=True)
class Prefix:
    """The text of `field` begins with `value`: an administrative division's own rows (809, Art. 24)."""

    field: str
    value: str


@dataclass(frozen=True, slots=True)
class Exists:
    """`field` is neither null nor missing."""

    field: str


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part is true."""

    parts: tuple["RowFilter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """At least one part is true."""

    parts: tuple["RowFilter", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """The part is false (not unknown: a comparison with null is neither true nor false, and the row is dropped)."""

    part: "RowFilter"


RowFilter: TypeAlias = Compare | Member | Range | Prefix | Exists | AllOf | AnyOf | Not


class GrantState(StrEnum):
    """State of a share request and its grant."""

    DRAFT = "draft"
    SUBMITTED = "submitted"
    SUPPLEMENT = "supplement"
    APPROVED = "approved"
    ACTIVE = "active"
    SUSPENDED = "suspended"
    REJECTED = "rejected"
    IN_DISPUTE = "in_dispute"
    COMPLETED = "completed"
    EXPIRED = "expired"
    TERMINATED = "terminated"
    WITHDRAWN = "withdrawn"
    COUNTERSIGNED = "countersigned"  # last, as in the export form: an Avro enum grows at its end


class History(StrEnum):
    """Which records are delivered, by recorded_at."""

    ALL = "all"
    SINCE_APPROVAL = "since_approval"


class CaseRule(StrEnum):
    """Which case number a call must carry."""

    STANDING = "standing"  # the one that the grant names
    EACH_CALL = "each_call"  # any, but one


class AccessMode(StrEnum):
    """How a grant is used: each call fits one mode, and what the mode does not name is refused."""

    STREAM = "stream"  # records are fetched in their order
    LOOKUP = "lookup"  # the golden record of a subject that is named
    VERIFY = "verify"  # registered predicates about it: yes, no or unknown
    LIST = "list"  # the subjects for whom a registered predicate holds


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One immutable version of a share request and the grant that it became (共享申请 / 授权).

    Attributes:
        id: UUID. version: 1, 2, 3 …
        pool_id: the pool in which it is valid.
        consumer, provider: internal department ids.
        topic: resource and schema major.
        fields: names granted, in the view's order.
        masks: field name → rule, for granted fields that are not shown as they are; `none` where the schema states a
            mask and the request wrote another out.
        unmasked: granted fields whose mask shows more than the schema's, as the request wrote it out.
        unmasked_reason: why, in words; empty where there are none.
        row_filter: rows granted; None = every row.
        filter_discloses: fields that are masked or absent, and that the filter tells all the same (披露).
        disclosure_reason: why, in words; empty where there are none.
        purpose: id of the purpose catalogue (使用目的).
        duty: code of the item of the consumer's duty list (权责清单) to which the purpose belongs; empty = it had none.
        legal_basis: law and article (使用依据), in words.
        case_rule, case: see CaseRule; `case` is the standing number, empty otherwise.
        not_before, expires: validity [not_before, expires), aware times.
        history: see History.
        quota_per_day: released records per day of Asia/Shanghai; None = no limit.
        ceiling: highest level of a granted field and of a field of the filter, over all that the consumer holds of
            the resource.
        zone: network zone of the consumer, as it was when the request was made.
        source_zone: zone of the resource, where the grant delivers from it into `zone`; empty = not across zones.
        zone_reason: why across zones, in words; empty where it does not.
        withdrawals: consumers receive the keys of rows that leave the filter, and of voids.
        requested_by, approved_by: account names; never the same person. Who approved is the head of the provider's
            sharing office, or the data authority that overturned a refusal.
        approved_at: when who approved signed; once all have signed, when the last one did. None before.
        confirmed_by: account name of the provider's security officer who signed beside it.
        together_with: ids of the consumer's other grants on the resource with which this one was decided on.
        suspend_after: an active grant that shows unmasked what no request wrote out is suspended from this time on.
        view_schema_id: registry id of the view's output schema, None before approval.
        state: see GrantState.
        renews: id of the grant that it renews; empty = none.
        first: id of the first grant of the renewals before it, whose secret makes the record keys; empty = itself.
        stream: id of the grant whose position and delivered keys it goes on with; empty = its own.
        since: time from which SINCE_APPROVAL counts; None = its own approval.
        carried_on, carried: day (ISO 8601) of its activation, and the records released under the renewed grant on it.
        access_mode: see AccessMode.
        predicates: registered predicates that are answered, as `id/version`; of the modes VERIFY and LIST alone.
        batch_max: subjects of one call at most; 0 in modes that name none.
        provenance: a look-up names the source of each field: department, resource, place and times.
        as_of: a subject may be asked about as of an earlier time.
        places: releases hold each record's partition and offset, its operation and its valid times: a disclosure, since
            places tell how many records lie between two that are delivered.
    """

    id: str
    version: int
    pool_id: str
    consumer: str
    provider: str
    topic: Topic
    fields: tuple[str, ...]
    masks: tuple[tuple[str, MaskRule], ...]
    row_filter: RowFilter | None
    purpose: str
    legal_basis: str
    case_rule: CaseRule
    case: str
    not_before: datetime
    expires: datetime
    history: History
    quota_per_day: int | None
    ceiling: Level
    zone: str = "default"
    withdrawals: bool = True
    requested_by: str
    approved_by: str | None = None
    approved_at: datetime | None = None
    view_schema_id: int | None = None
    state: GrantState = GrantState.DRAFT
    unmasked: tuple[str, ...] = ()
    unmasked_reason: str = ""
    filter_discloses: tuple[str, ...] = ()
    disclosure_reason: str = ""
    confirmed_by: str | None = None
    together_with: tuple[str, ...] = ()
    suspend_after: datetime | None = None
    source_zone: str = ""
    zone_reason: str = ""
    duty: str = ""
    renews: str = ""
    first: str = ""
    stream: str = ""
    since: datetime | None = None
    carried_on: str = ""
    carried: int = 0
    access_mode: AccessMode = AccessMode.STREAM
    predicates: tuple[str, ...] = ()
    batch_max: int = 0
    provenance: bool = False
    as_of: bool = False
    places: bool = False

    @property
    def record_key_id(self) -> str:
        """Id of the grant whose secret makes the record keys: stable over renewals."""
        return self.first or self.id

    @property
    def stream_id(self) -> str:
        """Id of the grant whose position and delivered keys count: stable over renewals that change no view."""
        return self.stream or self.id


@dataclass(frozen=True, slots=True)
class Allow:
    """The act may go on. Truthy."""

    def __bool__(self) -> bool:
        return True


@dataclass(frozen=True, slots=True)
class Deny:
    """The act may not go on, and why. Falsy.

    Attributes:
        reason: the first rule that failed.
        explanation: one sentence for the caller: what was got, expected, and to do. No record values.
    """

    reason: Reason
    explanation: str

    def __bool__(self) -> bool:
        return False
