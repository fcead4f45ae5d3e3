"""The governance API's reference names every call and every word that the code knows, and no others."""

import re

import pytest

from registry.governance.approvals import ApprovalState
from registry.governance.subject_rights import Profile, SubjectOperation
from registry.reports.diff import ChangeKind, ReaderImpact
from registry.reports.grant_impact import ImpactSeverity
from registry.rest.governance import GovernanceHandlers
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "reference" / "governance-api.md").read_text(encoding="utf-8")
RIGHTS = (ROOT / "docs" / "reference" / "configuration.md").read_text(encoding="utf-8")


def test_every_call_has_a_row() -> None:
    routes = GovernanceHandlers.routes(GovernanceHandlers.__new__(GovernanceHandlers))
    served = {(route.method, route.path) for route in routes}
    named = {
        (method, re.sub(r"\{id\}", "{approval_id}", path))
        for method, path in re.findall(r"`(GET|POST) (/[^`]*)`", PAGE)
    }
    assert named == served


@pytest.mark.parametrize("words", [ChangeKind, ReaderImpact, ApprovalState], ids=lambda words: words.__name__)
def test_every_word_of_an_answer_is_explained(words: type[ChangeKind]) -> None:
    assert {word.value for word in words} <= set(re.findall(r"`([^`\n]+)`", PAGE))


def test_every_touch_is_explained() -> None:
    assert {touch.name.lower() for touch in ImpactSeverity} <= set(re.findall(r"`([^`\n]+)`", PAGE))


def test_every_operation_and_profile_is_in_the_configuration() -> None:
    known = set(re.findall(r"`([^`\n]+)`", RIGHTS))
    assert {word.value for word in (*SubjectOperation, *Profile)} <= known
