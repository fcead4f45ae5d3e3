"""Details of events: a certificate of disposal is whole, and what is refused is said in both languages."""

from dataclasses import replace

import pytest

from exchange.requests.details import Details, DisposalCertificate
from exchange.requests.model import Event, Ground, SuspensionGround
from exchange.requests.refusals import GROUND_WORDS
from exchange.requests.request_json import from_text, to_text
from schemas.errors import InvalidError, Reason
from tests.kit.cases.requests import LI, NOW, WANG, a_draft

WHOLE = DisposalCertificate(number="XH-7", date="2026-05-04", method="覆写", person="保密办")


@pytest.mark.parametrize(
    "change",
    [
        {"number": " "},
        {"method": ""},
        {"person": ""},
        {"date": "4 May"},
        {"date": "2026-02-30"},
        {"person": "王" * 201},
    ],
)
def test_a_certificate_that_lacks_something_is_refused(change: dict[str, str]) -> None:
    with pytest.raises(InvalidError) as caught:
        Details(certificate=replace(WHOLE, **change)).act(Event.COMPLETE, by=WANG, at=NOW, reason="done")
    assert caught.value.reason is Reason.REQUEST_INVALID


def test_a_grant_is_completed_by_its_certificate_and_no_other_reference() -> None:
    assert Details(certificate=WHOLE).act(Event.COMPLETE, by=WANG, at=NOW).reference == "XH-7"
    assert Details(reference="minutes-1").act(Event.COMPLETE, by=WANG, at=NOW).reference == ""
    assert Details(reference="minutes-1").act(Event.DISPUTE, by=WANG, at=NOW).reference == "minutes-1"


def test_a_suspension_in_haste_is_one_for_an_incident() -> None:
    assert Details().act(Event.SUSPEND, by=LI, at=NOW).misuse is SuspensionGround.INCIDENT
    named = Details(misuse=SuspensionGround.OVER_SCOPE)
    assert named.act(Event.SUSPEND, by=LI, at=NOW).misuse is SuspensionGround.OVER_SCOPE
    assert Details().act(Event.REJECT, by=LI, at=NOW).misuse is None


def test_an_entry_notes_what_was_said_and_nothing_else() -> None:
    assert Details().noted() == {}
    noted = Details(clause="条例", ground=Ground.OUT_OF_DUTY, supplement={"fields": ("a",)}, days=3).noted()
    assert noted == {"clause": "条例", "ground": "out_of_duty", "supplement": ["fields"], "days": 3}


def test_every_ground_is_said_in_both_languages() -> None:
    assert GROUND_WORDS.keys() == set(Ground)
    for english, chinese in GROUND_WORDS.values():
        assert english.isascii()
        assert not chinese.isascii()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"form":"request/2"}', '{"form":"request/1"}'])
def test_a_text_of_another_form_is_refused_without_what_it_says(text: str) -> None:
    with pytest.raises(InvalidError) as caught:
        from_text(text)
    assert caught.value.reason is Reason.REQUEST_INVALID


def test_a_request_is_read_as_it_was_written() -> None:
    assert from_text(to_text(a_draft())) == a_draft()
