"""Purpose catalogue (使用目的): the purposes for which records may be requested; closed, seeded, hierarchical.

A grant names one purpose, and a call declares the same one. The tree is for people who search for the right entry and
for reports; a parent does not include its children, nor a child its parent, since a use other than the granted one
needs the provider's consent (State Council decree 809, Art. 25).

Each purpose maps to a term of the W3C Data Privacy Vocabulary, version 2.1, for exchange with other systems. DPV is the
report of a community group, not a W3C standard, so its terms are listed beside our ids and never used in their place.
"""

from dataclasses import dataclass
from typing import Final

__all__ = ["SEED", "Purpose"]

_DPV = "https://w3id.org/dpv#"


@dataclass(frozen=True, slots=True, kw_only=True)
class Purpose:
    """One purpose.

    Attributes:
        id: lower-case words joined by "-"; never reused with another meaning.
        parent: id of the wider purpose; None at the top.
        zh: name in Chinese.
        en: name in English.
        dpv: IRI of the nearest term of the Data Privacy Vocabulary.
        active: may be requested; a retired purpose stays, since old grants name it.
    """

    id: str
    parent: str | None
    zh: str
    en: str
    dpv: str
    active: bool = True


def _purpose(purpose_id: str, parent: str | None, zh: str, en: str, term: str) -> Purpose:
    return Purpose(id=purpose_id, parent=parent, zh=zh, en=en, dpv=_DPV + term)


SEED: Final[tuple[Purpose, ...]] = (
    _purpose("public-service", None, "公共服务", "Public services", "ImprovePublicServices"),
    _purpose("service-delivery", "public-service", "政务服务事项办理", "Handling a service matter", "ServiceProvision"),
    _purpose("eligibility", "public-service", "资格核验", "Checking eligibility", "ServiceAccessDetermination"),
    _purpose("benefit-payment", "public-service", "待遇发放", "Paying benefits", "PersonalisedBenefits"),
    _purpose("health-care", "public-service", "医疗卫生服务", "Health care", "ImproveHealthcare"),
    _purpose("transport", "public-service", "交通出行服务", "Transport and mobility", "ImproveTransportMobility"),
    _purpose("verification", None, "信息核验", "Verification", "Verification"),
    _purpose("identity-verification", "verification", "身份核验", "Verifying identity", "IdentityVerification"),
    _purpose("data-correction", "verification", "数据校核更正", "Correcting records", "RecordManagement"),
    _purpose("statutory-duty", None, "履行法定职责", "Performing a statutory duty", "FulfilmentOfObligation"),
    _purpose("supervision", "statutory-duty", "行政监管执法", "Supervision and enforcement", "LegalCompliance"),
    _purpose("fraud-prevention", "statutory-duty", "反欺诈", "Preventing fraud", "FraudPreventionAndDetection"),
    _purpose("public-security", "statutory-duty", "公共安全", "Public security", "ProtectionOfPublicSecurity"),
    _purpose("policy-making", None, "政策制定", "Making public policy", "PublicPolicyMaking"),
    _purpose("statistics", "policy-making", "统计调查", "Official statistics", "ProvideOfficialStatistics"),
    _purpose("research", "policy-making", "科学研究", "Scientific research", "ScientificResearch"),
)
"""The purposes of a new pool; parents come before their children."""
