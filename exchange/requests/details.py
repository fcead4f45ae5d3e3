"""Details of an event of a request or a grant: what it says beside its reason. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from exchange.requests.guards import Act
from exchange.requests.model import Event, Ground, SuspensionGround
from schemas.access import Actor
from schemas.canonical import Json
from schemas.errors import InvalidError, Reason

__all__ = ["Details", "DisposalCertificate"]

_MOST_TEXT: Final = 200  # characters


@dataclass(frozen=True, slots=True, kw_only=True)
class DisposalCertificate:
    """Certificate that what was received has been disposed of (销毁证明; decree 809, Art. 27).

    Attributes:
        number: of the certificate.
        date: on which it was disposed of, as YYYY-MM-DD.
        method: how, in words.
        person: who answers for it, in words; no national identity number.
    """

    number: str
    date: str
    method: str
    person: str

    def check(self) -> None:
        """Check that it says all of this.

        Raises:
            InvalidError: REQUEST_INVALID.
        """
        texts = {"number": self.number, "date": self.date, "method": self.method, "person": self.person}
        wrong = [name for name, text in texts.items() if not text.strip() or len(text) > _MOST_TEXT]
        try:
            datetime.strptime(self.date, "%Y-%m-%d")  # noqa: DTZ007 - a day, without a time
        except ValueError:
            wrong.append("date as YYYY-MM-DD")
        if wrong:
            raise InvalidError(
                Reason.REQUEST_INVALID,
                f"got a certificate of disposal without {', '.join(dict.fromkeys(wrong))}; expected number, date, "
                f"method and person, each of at most {_MOST_TEXT} characters (decree 809, Art. 27)",
            )

    def to_json(self) -> dict[str, Json]:
        """Return it as an entry notes it."""
        return {"number": self.number, "date": self.date, "method": self.method, "person": self.person}


@dataclass(frozen=True, slots=True, kw_only=True)
class Details:
    """What an event says beside its reason; which of it is mandatory, the event says.

    Attributes:
        clause: law and article that is cited.
        ground: of a refusal.
        misuse: ground of a suspension.
        missing: the complete list of what a request lacks.
        days: working days of an extension.
        rectify_until: until when a suspended grant can be rectified, aware; None = as the rule profile says.
        reference: record of negotiations, or of a filing.
        certificate: of disposal, when a grant is completed.
        supplement: elements of a request as supplemented, by name.
    """

    clause: str = ""
    ground: Ground | None = None
    misuse: SuspensionGround | None = None
    missing: tuple[str, ...] = ()
    days: int = 0
    rectify_until: datetime | None = None
    reference: str = ""
    certificate: DisposalCertificate | None = None
    supplement: Mapping[str, object] = field(default_factory=dict)

    def act(self, event: Event, *, by: Actor, at: datetime, reason: str = "") -> Act:
        """Return the act of an event.

        A suspension without a ground is one for an incident: a suspension in haste has its reason in words.

        Raises:
            InvalidError: REQUEST_INVALID, the certificate lacks something.
        """
        if event is Event.COMPLETE and self.certificate is not None:
            self.certificate.check()
        misuse = self.misuse
        if event is Event.SUSPEND and misuse is None:
            misuse = SuspensionGround.INCIDENT
        return Act(
            event=event,
            by=by,
            at=at,
            reason=reason,
            clause=self.clause,
            ground=self.ground,
            misuse=misuse,
            missing=self.missing,
            supplement=self.supplement,
            days=self.days,
            rectify_until=self.rectify_until,
            reference="" if event is Event.COMPLETE and self.certificate is None else self._reference(),
        )

    def noted(self) -> dict[str, Json]:
        """Return what the entry of the event notes of it."""
        said: dict[str, Json] = {
            "clause": self.clause,
            "ground": None if self.ground is None else str(self.ground),
            "misuse": None if self.misuse is None else str(self.misuse),
            "missing": list(self.missing),
            "days": self.days,
            "reference": self.reference,
            "certificate": None if self.certificate is None else self.certificate.to_json(),
            "supplement": [*sorted(self.supplement)],
        }
        return {name: value for name, value in said.items() if value}

    def _reference(self) -> str:
        return self.reference if self.certificate is None else self.certificate.number
