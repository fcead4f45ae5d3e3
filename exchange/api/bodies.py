"""JSON bodies of the control API: requests and responses as documents.

Unknown members are refused, and what is too large: each text has 2,000 characters at most, each list 2,000 items, and a
body 65,536 characters in all. A schema's text has a limit of its own (`registry.avro.parser`). No text, and no name of
a member, has a zero character or half a surrogate pair: JSON can write both, the database and UTF-8 have neither.
"""

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, field_validator, model_validator

from exchange.access.grants.grant_json import to_json
from exchange.access.grants.store import GrantVersion
from exchange.access.view.filter import filter_from_json
from exchange.audit.store import EntryQuery
from exchange.control.accounts import ListedAccount
from exchange.control.grants.review import Review
from exchange.control.grants.submission import Asked, Supplement
from exchange.erasure.erasures import Erasure
from exchange.identity.proposals import Proposal
from exchange.identity.store import Certificate
from exchange.requests.details import Details, DisposalCertificate
from exchange.requests.model import Ground, Mode, SuspensionGround
from registry.directory.model import CatalogueEntry, KeptHistory, ShareType, Zone
from schemas.access import CaseRule, Grant, GrantState, History, Level, MaskRule, Role
from schemas.canonical import Json
from schemas.names import Topic

__all__ = [
    "MAX_BODY",
    "MAX_ITEMS",
    "MAX_TEXT",
    "Body",
    "BundleBody",
    "BundleQueryBody",
    "CertificateBody",
    "CommitBody",
    "ConfirmationBody",
    "ConnectorBody",
    "EntryBody",
    "ErasureBody",
    "EventBody",
    "FetchBody",
    "HistoryBody",
    "InvitationBody",
    "PersonBody",
    "PruningBody",
    "ReasonBody",
    "RecordsBody",
    "RequestBody",
    "ReturnFlowBody",
    "SchemaBody",
    "SupplementBody",
    "TokenBody",
    "UserBody",
    "account_json",
    "certificate_json",
    "check_characters",
    "entry_json",
    "erasure_json",
    "grant_json",
    "proposal_json",
    "review_json",
    "version_json",
]


MAX_TEXT: Final = 2_000
"""Characters of each text of a body."""
MAX_ITEMS: Final = 2_000
"""Items of each list of a body."""
MAX_BODY: Final = 65_536
"""Characters of all texts of a body."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_MAX_BYTES = 1024 * 1024  # of an answer's values, as Avro
_POSITION = "opaque, in base64; empty: after the last acknowledgement; `AA==`: the first record of the grant"


class Body(BaseModel):
    """A body of a request; see the module."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _is_bounded(cls, sent: Any) -> Any:
        _check_sent(sent)
        return sent


class InvitationBody(Body):
    """The connector that a one-time enrolment token is for."""

    connector: str | None = Field(None, description="only this connector may use it; any of the department if absent")


class UserBody(Body):
    """An account for a person, to be proposed."""

    name: str
    role: Role
    department: str = Field("", description="internal id; empty for roles of the pool itself")
    staff_number: str = Field(description="of the person (工号), unique in the pool; no national identity number")
    token_fingerprint: str = Field(description="of the token that the account's holder has made: sha256:…")


class PersonBody(Body):
    """The person of an account of an earlier version, to be proposed."""

    staff_number: str


class TokenBody(Body):
    """The fingerprint of another token for an account."""

    token_fingerprint: str


class ConfirmationBody(Body):
    """The confirmation of a proposal."""

    token_fingerprint: str | None = Field(None, description="for an account or a token: from the account's holder")


class ConnectorBody(Body):
    """A connector to revoke, and why."""

    department: str
    connector: str
    reason: str


class TimesBody(Body):
    """How exactly the times of a resource's records are delivered."""

    round_to: str = Field(description="step, such as 15m, 1h or 1d; the times are rounded down to it, and stay so")


class DaysBody(Body):
    """Days for which records are kept."""

    days: int


HistoryField = Literal["all", "latest"] | DaysBody


class HistoryBody(Body):
    """What a resource keeps (保存期限): `all`, `latest`, or `{"days": n}`."""

    history: HistoryField

    def to_history(self) -> KeptHistory:
        """Return it as the catalogue has it.

        Raises:
            InvalidError: REQUEST_INVALID, for another number of days than 1 to 36,500.
        """
        return _history(self.history)


class EntryBody(Body):
    """A catalogue entry to draft (decree 809, Art. 13 to 15)."""

    topic: str
    title: str
    abstract: str = ""
    code: str
    share_type: ShareType
    share_scope: str = ""
    use_purpose: str = ""
    refuse_reason: str = ""
    legal_basis: str = ""
    level: str = Field(pattern="^(G[1-4]|IMP)$")
    times: TimesBody | None = None
    history: HistoryField = "all"

    def to_entry(self, provider: str) -> CatalogueEntry:
        """Return the entry of a provider.

        Raises:
            InvalidError: NAME_INVALID or REQUEST_INVALID.
        """
        members = self.model_dump(exclude={"topic", "level", "times", "history"})
        return CatalogueEntry(
            topic=Topic.parse(self.topic),
            level=Level[self.level],
            provider=provider,
            history=_history(self.history),
            round_times_to="" if self.times is None else self.times.round_to,
            **members,
        )


class SchemaBody(BaseModel):
    """An Avro schema, as text."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    text: str

    @field_validator("text")
    @classmethod
    def _has_characters(cls, text: str) -> str:
        return check_characters(text, "text")


class PruningBody(Body):
    """The month before which the keys of the trace shall be destroyed."""

    before: str = Field(description="YYYY-MM, six months ago or earlier")


class BundleQueryBody(Body):
    """Criteria of the entries of a bundle, as those of a search."""

    department: str | None = None
    actor: str | None = None
    resource: str | None = None
    purpose: str | None = None
    case: str | None = None
    grant: str | None = None
    action: str | None = None
    decision: str | None = None
    reason: str | None = None
    party: str | None = None
    from_: str | None = Field(None, alias="from")
    to: str | None = None

    def to_query(self, parse_moment: Callable[[str, str], int]) -> EntryQuery:
        """Return the query of the log.

        Args:
            parse_moment: returns the microseconds of a member's text.

        Raises:
            InvalidError: REQUEST_INVALID, for a time of another form.
        """
        members = self.model_dump(exclude={"party", "from_", "to"})
        since = None if self.from_ is None else parse_moment("from", self.from_)
        until = None if self.to is None else parse_moment("to", self.to)
        return EntryQuery(**members, since=since, until=until)


class BundleBody(Body):
    """An evidence bundle to make: of these entries, or of all that match a query."""

    entries: list[str] = Field([], max_length=1000, description="ids of entries")
    query: BundleQueryBody | None = None


class ReasonBody(Body):
    """A reason, as text; it is written into the audit log."""

    reason: str = ""


class CertificateBody(Body):
    """A certificate of disposal (销毁证明; decree 809, Art. 27)."""

    number: str
    date: str = Field(description="on which it was disposed of, YYYY-MM-DD")
    method: str
    person: str = Field(description="who answers for it; no national identity number")


class EventBody(ReasonBody):
    """Why something happens to a request or a grant, and what the event requires beside that.

    `reject` and `uphold`: a clause, and to reject a ground; `need_more`: `missing`; `extend`: `days`; `dispute`,
    `change_service` and `terminate_by_agreement`: `reference`; `complete`: `certificate`.
    """

    clause: str = Field("", max_length=500, description="law and article that are cited; mandatory to refuse")
    ground: Ground | None = Field(None, description="of a rejection, mandatory then")
    misuse: SuspensionGround | None = Field(None, description="ground of a suspension; an incident if absent")
    missing: list[str] = Field([], max_length=50, description="all that a request lacks, in one list")
    days: int = Field(0, ge=0, le=3660, description="of an extension, in the unit of the limit")
    rectify_until: AwareDatetime | None = Field(
        None, description="until when a suspended grant can be rectified; as the rule profile says if absent"
    )
    reference: str = Field("", max_length=200, description="id of the record of negotiations, or of the filing")
    certificate: CertificateBody | None = Field(None, description="of disposal, mandatory to complete a grant")

    def to_details(self) -> Details:
        """Return what the event says beside its reason."""
        certificate = self.certificate
        return Details(
            clause=self.clause,
            ground=self.ground,
            misuse=self.misuse,
            missing=tuple(self.missing),
            days=self.days,
            rectify_until=self.rectify_until,
            reference=self.reference,
            certificate=None if certificate is None else DisposalCertificate(**certificate.model_dump()),
        )


class SupplementBody(Body):
    """What a request lacked, as its supplement writes it; what is absent stays as it was."""

    legal_basis: str | None = None
    duty: str | None = Field(None, max_length=64)
    purpose: str | None = None
    scenario: str | None = None
    fields: list[str] | None = None
    mode: Mode | None = None
    expires: AwareDatetime | None = None
    truthful: bool | None = None

    def to_supplement(self) -> Supplement:
        """Return it as the pool takes it."""
        said = self.model_dump()
        return Supplement(**{**said, "fields": None if said["fields"] is None else tuple(said["fields"])})


class ErasureBody(Body):
    """An erasure to propose."""

    topic: str
    key: list[str] = Field(
        min_length=1, description="parts of the record key, in the clear; only its pseudonym is kept"
    )
    reason: str


class RequestBody(Body):
    """A share request (共享申请; decree 809, Art. 20)."""

    topic: str
    fields: list[str]
    masks: dict[str, MaskRule] = {}
    unmasked_reason: str = Field("", max_length=1000, description="why a mask shows more than the schema's")
    row_filter: dict[str, object] | None = None
    filter_discloses: list[str] = []
    disclosure_reason: str = Field("", max_length=1000, description="why the filter tells what the view hides")
    purpose: str
    duty: str = Field("", max_length=64, description="code of the item of your department's duty list")
    renews: str = Field("", max_length=64, description="id of the grant that this request renews")
    legal_basis: str
    case_rule: CaseRule = CaseRule.STANDING
    case: str = ""
    not_before: AwareDatetime
    expires: AwareDatetime
    history: History = History.SINCE_APPROVAL
    quota_per_day: int | None = None
    ceiling: str = Field("G4", pattern="^(G[1-4]|IMP)$")
    withdrawals: bool = True
    source_zone: Zone | None = Field(None, description="the resource's zone, where it is not the department's own")
    zone_reason: str = Field("", max_length=1000, description="why records leave that zone")
    scenario: str = Field(
        "", max_length=1000, description="what the records are used for; purpose and case stand for it if absent"
    )
    mode: Mode = Field(Mode.SERVICE, description="how records are shared")
    truthful: bool = Field(True, description="who files it states that it is true, lawful and necessary")

    def to_asked(self) -> Asked:
        """Return what the request says beside the grant that is asked for."""
        return Asked(scenario=self.scenario, mode=self.mode, truthful=self.truthful)

    def to_draft(self) -> Grant:
        """Return a draft; the pool fills in consumer and provider.

        Raises:
            InvalidError: NAME_INVALID or FILTER_INVALID.
        """
        return Grant(
            id="",
            version=1,
            pool_id="",
            consumer="",
            provider="",
            topic=Topic.parse(self.topic),
            fields=tuple(self.fields),
            masks=tuple(self.masks.items()),
            row_filter=None if self.row_filter is None else filter_from_json(self.row_filter),  # type: ignore[arg-type]
            unmasked_reason=self.unmasked_reason,
            filter_discloses=tuple(self.filter_discloses),
            disclosure_reason=self.disclosure_reason,
            purpose=self.purpose,
            duty=self.duty,
            renews=self.renews,
            legal_basis=self.legal_basis,
            case_rule=self.case_rule,
            case=self.case,
            not_before=self.not_before,
            expires=self.expires,
            history=self.history,
            quota_per_day=self.quota_per_day,
            ceiling=Level[self.ceiling],
            withdrawals=self.withdrawals,
            source_zone="" if self.source_zone is None else str(self.source_zone),
            zone_reason=self.zone_reason,
            requested_by="",
            state=GrantState.DRAFT,
        )


class ReturnFlowBody(Body):
    """What a department wants of a higher level's resource (回流; decree 809, Art. 24)."""

    topic: str
    division: str = Field("", max_length=12, description="code, or its beginning; without it, the department's area")
    field: str = Field("", max_length=200, description="division field of the schema, where it has several")
    purpose: str = ""
    duty: str = Field("", max_length=64, description="code of the item of your department's duty list")
    case: str = Field("", max_length=200, description="standing case number")


def _check_sent(sent: Any) -> None:
    """Check the sizes and the characters of what was sent; the values are checked by its model."""
    whole, waiting = 0, [("body", sent)]
    while waiting:
        name, value = waiting.pop()
        if isinstance(value, str):
            whole += len(value)
            check_characters(value, name)
            if len(value) > MAX_TEXT:
                raise ValueError(f"got a text of {len(value)} characters as {name}; expected {MAX_TEXT} at most")
        elif isinstance(value, list):
            if len(value) > MAX_ITEMS:
                raise ValueError(f"got a list of {len(value)} items as {name}; expected {MAX_ITEMS} at most")
            waiting += [(name, item) for item in value]
        elif isinstance(value, dict):
            whole += sum(map(len, value))
            for member in value:
                check_characters(member, "a name of a member")
            waiting += [(name if name != "body" else str(member)[:40], item) for member, item in value.items()]
    if whole > MAX_BODY:
        raise ValueError(f"got a body of {whole} characters; expected {MAX_BODY} at most")


def check_characters(text: str, name: str) -> str:
    """Return a text that the database and UTF-8 can have.

    Raises:
        ValueError: it has a zero character, or half a surrogate pair.
    """
    if "\0" in text or (not text.isascii() and _SURROGATE.search(text)):
        raise ValueError(f"got a zero character or half a surrogate pair in {name}; expected a text without")
    return text


def _history(field: HistoryField) -> KeptHistory:
    if isinstance(field, DaysBody):
        return KeptHistory(days=field.days)
    return KeptHistory(latest=field == "latest")


class RecordsBody(Body):
    """What each call of a consumer states."""

    grant: str = Field(description="id of the grant", max_length=100)
    purpose: str = Field(description="of the purpose catalogue, as the grant states it")
    case: str = Field("", description="business case number, where the grant has one")
    on_behalf_of: str = Field("", description="staff pseudonym of the person for whom the program acts")


class FetchBody(RecordsBody):
    """Records to be fetched."""

    position: str = Field("", description=_POSITION)
    max_records: int = Field(1_000, ge=1, le=10_000, description="records of the answer at most")
    max_bytes: int = Field(
        _MAX_BYTES, ge=1, le=_MAX_BYTES, description="bytes of their values as Avro, at most; but one record always"
    )
    wait: float = Field(0.0, ge=0, le=60, description="seconds to wait for the first record")


class CommitBody(RecordsBody):
    """A position up to which the consumer has stored everything."""

    position: str = Field(description=_POSITION)


def erasure_json(erasure: Erasure) -> dict[str, Json]:
    """Return an erasure's document."""
    return {
        "id": erasure.id,
        "topic": str(erasure.topic),
        "pseudonym": erasure.key.hex(),
        "state": str(erasure.state),
        "reason": erasure.reason,
        "proposed_by": erasure.proposed_by,
        "proposed_at": erasure.proposed_at.isoformat(),
        "decided_by": erasure.decided_by,
        "decided_at": None if erasure.decided_at is None else erasure.decided_at.isoformat(),
        "destroyed": erasure.destroyed,
        "done_at": None if erasure.done_at is None else erasure.done_at.isoformat(),
    }


def grant_json(grant: Grant) -> dict[str, Json]:
    """Return a grant's document."""
    return to_json(grant)


def renewal_json(grant: Grant, now: datetime) -> dict[str, Json]:
    """Return the request that renews a grant as it is, from now on; end and legal basis are the requester's to add."""
    document = to_json(grant)
    kept = {name: document[name] for name in RequestBody.model_fields if document.get(name) not in (None, "", [])}
    kept |= {"renews": grant.id, "not_before": now.isoformat()}
    return {name: value for name, value in kept.items() if name not in {"expires", "legal_basis"}}


def review_json(review: Review) -> dict[str, Json]:
    """Return a grant's document, with its deadline, and what is to be known of it as its member `review`."""
    deadline = review.deadline
    return {
        **to_json(review.grant),
        "submitted_at": _moment(review.submitted_at),
        "due_at": None if deadline is None else deadline.at.isoformat(),
        "due_confirmed": None if deadline is None else not deadline.provisional,
        "due": None if review.due is None else str(review.due),
        "review": review.to_json(),
    }


def version_json(version: GrantVersion) -> dict[str, Json]:
    """Return the document of a grant's version; what it says is in the grant of that version."""
    return {
        "version": version.grant.version,
        "state": str(version.grant.state),
        "at": version.recorded_at.isoformat(),
        "hash": version.hash.hex(),
        "entry": version.entry_id,
    }


def account_json(listed: ListedAccount) -> dict[str, Json]:
    """Return an account's document; nothing of its token but when it ends."""
    account = listed.account
    return {
        "name": account.name,
        "role": str(account.role),
        "department": account.department,
        "staff_number": account.person,
        "created_by": account.created_by,
        "created_at": account.created_at.isoformat(),
        "expires_at": account.expires_at.isoformat(),
        "last_used": _moment(listed.last_used),
        "revoked_at": _moment(account.revoked_at),
    }


def proposal_json(proposal: Proposal) -> dict[str, Json]:
    """Return a proposal's document; not the fingerprint, which who confirms gets from the account's holder."""
    return {
        "id": proposal.id,
        "kind": str(proposal.kind),
        "department": proposal.department,
        "subject": proposal.subject,
        "role": None if proposal.role is None else str(proposal.role),
        "staff_number": proposal.person,
        "proposed_by": proposal.proposed_by,
        "proposed_at": proposal.proposed_at.isoformat(),
        "expires_at": proposal.expires_at.isoformat(),
        "state": str(proposal.state),
        "decided_by": proposal.decided_by,
        "decided_at": _moment(proposal.decided_at),
        "reason": proposal.reason,
    }


def certificate_json(certificate: Certificate) -> dict[str, Json]:
    """Return a certificate's document."""
    return {
        "serial": certificate.serial,
        "department": certificate.department,
        "connector": certificate.connector,
        "not_before": certificate.not_before.isoformat(),
        "not_after": certificate.not_after.isoformat(),
        "revoked_at": _moment(certificate.revoked_at),
        "revoked_by": certificate.revoked_by,
        "revoked_because": certificate.revoked_because,
    }


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def entry_json(entry: CatalogueEntry) -> dict[str, Json]:
    """Return a catalogue entry's document."""
    return {
        "topic": str(entry.topic),
        "version": entry.version,
        "title": entry.title,
        "abstract": entry.abstract,
        "provider": entry.provider,
        "code": entry.code,
        "share_type": str(entry.share_type),
        "share_scope": entry.share_scope,
        "use_purpose": entry.use_purpose,
        "refuse_reason": entry.refuse_reason,
        "legal_basis": entry.legal_basis,
        "level": entry.level.name,
        "zone": str(entry.zone),
        "state": str(entry.state),
        "history": {"days": entry.history.days} if entry.history.days is not None else str(entry.history),
        **({"times": {"round_to": entry.round_times_to}} if entry.round_times_to else {}),
    }
