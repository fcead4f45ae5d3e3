"""Bodies of share requests and grants: request, supplement, events, return flow, and their documents."""

from datetime import datetime

from pydantic import AwareDatetime, Field

from exchange.access.grants.grant_json import to_json
from exchange.access.grants.store import GrantVersion
from exchange.access.view.filter import filter_from_json
from exchange.api.bodies.base import Body, ReasonBody, moment_or_none
from exchange.control.grants.review import Review
from exchange.control.grants.submission import Asked, Supplement
from exchange.requests.details import Details, DisposalCertificate
from exchange.requests.model import Ground, Mode, SuspensionGround
from registry.directory.model import Zone
from schemas.access import AccessMode, CaseRule, Grant, GrantState, History, Level, MaskRule
from schemas.canonical import Json
from schemas.names import Topic

__all__ = [
    "CertificateBody",
    "EventBody",
    "RequestBody",
    "ReturnFlowBody",
    "SupplementBody",
    "grant_json",
    "renewal_json",
    "review_json",
    "version_json",
]


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


class RequestBody(Body):
    """A share request (共享申请; decree 809, Art. 20)."""

    topic: str
    fields: list[str]
    masks: dict[str, MaskRule] = Field({})
    unmasked_reason: str = Field("", max_length=1000, description="why a mask shows more than the schema's")
    row_filter: dict[str, object] | None = None
    filter_discloses: list[str] = Field([])
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
    access_mode: AccessMode = Field(
        AccessMode.STREAM, description="fetch records, look subjects up, verify or list them"
    )
    predicates: list[str] = Field([], description="registered predicates to verify or to list by, as id/version")
    batch_max: int | None = Field(None, description="subjects of one look-up or verification at most; 1 if absent")
    provenance: bool = Field(False, description="look-ups name the source of each field")
    as_of: bool = Field(False, description="subjects may be asked about as of an earlier time")
    places: bool = Field(False, description="releases hold each record's place; disclosure_reason says why")
    scenario: str = Field(
        "", max_length=1000, description="what the records are used for; purpose and case stand for it if absent"
    )
    mode: Mode = Field(Mode.SERVICE, description="how records are shared")
    truthful: bool = Field(True, description="who files it states that it is true, lawful and necessary")

    def to_asked(self) -> Asked:
        """Return what the request says beside the grant that is asked for."""
        return Asked(scenario=self.scenario, mode=self.mode, truthful=self.truthful)

    def _batch_max(self) -> int:
        if self.batch_max is not None:
            return self.batch_max
        return 1 if self.access_mode in {AccessMode.LOOKUP, AccessMode.VERIFY} else 0

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
            access_mode=self.access_mode,
            predicates=tuple(self.predicates),
            batch_max=self._batch_max(),
            provenance=self.provenance,
            as_of=self.as_of,
            places=self.places,
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
        "submitted_at": moment_or_none(review.submitted_at),
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
