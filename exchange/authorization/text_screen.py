"""Text screen: refuses free text that holds a number of a person, before it is stored or written to the log.

Callers declare purpose, case number and the person they act for; paths name resources; bodies hold reasons, titles and
names. What gets into an entry stays there permanently. `registry.governance.personal_numbers` says what is found. Where
the configuration states the form of a purpose's case numbers, only the form counts for them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from exchange.authorization.request_context import RequestContext
from registry.governance.case_form import CaseForm
from registry.governance.personal_numbers import find_personal_number
from schemas.access import Actor
from schemas.canonical import Json
from schemas.errors import InvalidError, Reason

__all__ = ["NOT_SCREENED", "TextFinding", "TextScreen", "finding_data", "refused_text"]

NOT_SCREENED = frozenset({"text", "row_filter", "key", "keys", "claimed", "claim_evidence"})
"""Members of bodies that are no free text: a schema's text, a row filter, the keys of records to be erased; and those
that no log, entry or error ever has, since they are sealed: what a correction ticket claims, and its evidence."""

_NAME = re.compile(r"[a-z_]{1,40}")
_SHORTEST = 10**10  # the least number with as many digits as a personal number
_CLEAN = 10_000  # texts without a finding that are remembered; most callers send the same few


@dataclass(frozen=True, slots=True, kw_only=True)
class TextFinding:
    """Why a text is refused: where it was, such as `case`, and what it holds. It never has the text."""

    field: str
    reason: Reason
    holds: str

    @property
    def message(self) -> str:
        """The refusal in words."""
        if self.reason is Reason.CASE_FORM_MISMATCH:
            return f"{self.field}: got a case number of another form than the purpose states; see `pool purposes`"
        return (
            f"{self.field}: got a text that holds what looks like a personal number ({self.holds}); leave it out, as "
            "free text stays in the audit log permanently"
        )


class TextScreen:
    """Finds personal numbers in what callers declare.

    Args:
        case_forms: by purpose.
    """

    def __init__(self, case_forms: Mapping[str, CaseForm] | None = None) -> None:
        self.case_forms = dict(case_forms or {})
        self._clean: set[str] = set()

    def text(self, field: str, text: str) -> TextFinding | None:
        """Return what is wrong with a text, None for nothing."""
        if text in self._clean:
            return None
        found = find_personal_number(text)
        if found is not None:
            return TextFinding(field=field, reason=Reason.PERSONAL_NUMBER, holds=str(found))
        if len(self._clean) >= _CLEAN:
            self._clean.clear()
        self._clean.add(text)
        return None

    def case(self, purpose: str, case: str, field: str = "case") -> TextFinding | None:
        """Return what is wrong with a case number: its form, where the purpose states one, else what it holds."""
        form = self.case_forms.get(purpose)
        if form is None or not case:
            return self.text(field, case)
        if form.fits(case):
            return None
        return TextFinding(field=field, reason=Reason.CASE_FORM_MISMATCH, holds="another form")

    def call(
        self, actor: Actor, call: RequestContext, resource: str
    ) -> tuple[TextFinding | None, Actor, RequestContext, str]:
        """Return the first finding in what a call declares, and the same without the texts that have one."""
        findings = []
        if (finding := self.case(call.purpose, call.case)) is not None:
            findings.append(finding)
            call = replace(call, case="")
        if (finding := self.text("purpose", call.purpose)) is not None:
            findings.append(finding)
            call = replace(call, purpose="")
        if (finding := self.text("client", call.client)) is not None:
            findings.append(finding)
            call = replace(call, client="")
        if call.on_behalf_of and (finding := self.text("on_behalf_of", call.on_behalf_of)) is not None:
            findings.append(finding)
            call = replace(call, on_behalf_of=None)
        if actor.on_behalf_of and (finding := self.text("on_behalf_of", actor.on_behalf_of)) is not None:
            findings.append(finding)
            actor = replace(actor, on_behalf_of=None)
        if (finding := self.text("resource", resource)) is not None:
            findings.append(finding)
            resource = ""
        return (findings[0] if findings else None), actor, call, resource

    def document(self, document: Any, field: str) -> TextFinding | None:
        """Return the first finding in a JSON document: in the names and the texts of it, but those of NOT_SCREENED."""
        return next(self._in_document(document, field), None)

    def _in_document(self, value: Any, field: str) -> Iterator[TextFinding]:
        if isinstance(value, str):
            yield from _found(self.text(field, value))
        elif isinstance(value, list):
            for item in value:
                yield from self._in_document(item, field)
        elif isinstance(value, Mapping):
            yield from self._in_members(value, field)
        elif isinstance(value, int | float) and abs(value) >= _SHORTEST:
            yield from _found(self.text(field, str(value)))

    def _in_members(self, members: Mapping[str, Any], field: str) -> Iterator[TextFinding]:
        for name, item in members.items():
            in_name = self.text(f"a name in {field}", name)
            yield from _found(in_name)
            if in_name is not None:
                continue
            if name == "case" and isinstance(item, str):
                yield from _found(self.case(str(members.get("purpose")), item, f"{field}.case"))
            elif name not in NOT_SCREENED:
                yield from self._in_document(item, f"{field}.{name if _NAME.fullmatch(name) else '?'}")


def _found(finding: TextFinding | None) -> Iterator[TextFinding]:
    if finding is not None:
        yield finding


def refused_text(finding: TextFinding) -> InvalidError:
    """Return the error of a refused text."""
    return InvalidError(finding.reason, finding.message, details={"field": finding.field})


def finding_data(finding: TextFinding) -> dict[str, Json]:
    """Return the data of the entry of a refused text."""
    return {"field": finding.field, "holds": finding.holds}
