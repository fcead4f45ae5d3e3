"""For random parties: the label of a flow is turned round with the parties, and follows level, area and kind."""

from hypothesis import given
from hypothesis import strategies as st

from exchange.access.decision.parties import DepartmentProfile, flow_of
from schemas.audit import Flow

DIGITS = (0, 2, 4, 6, 9)
TURNED = {
    Flow.HORIZONTAL: Flow.HORIZONTAL,
    Flow.PUBLIC: Flow.PUBLIC,
    Flow.VERTICAL_UP: Flow.VERTICAL_DOWN,
    Flow.VERTICAL_DOWN: Flow.VERTICAL_UP,
}


@st.composite
def parties(draw: st.DrawFn) -> DepartmentProfile:
    rank = draw(st.integers(0, 4))
    code = draw(st.sampled_from(("330000", "330100", "330106", "520100", "330106001", "000000")))
    public = draw(st.sampled_from((False, False, False, True)))
    return DepartmentProfile(id="d", rank=rank, division_code=code, area=code[: DIGITS[rank]], public=public)


@given(parties(), parties())
def test_the_flow_between_two_parties(provider: DepartmentProfile, consumer: DepartmentProfile) -> None:
    found = flow_of(provider, consumer)
    assert flow_of(consumer, provider) is TURNED[found]
    assert (found is Flow.PUBLIC) == (provider.public or consumer.public)
    if found is Flow.VERTICAL_DOWN:
        assert provider.rank < consumer.rank
        assert consumer.division_code.startswith(provider.area)
    if found is Flow.HORIZONTAL and provider.rank != consumer.rank:
        upper, lower = sorted((provider, consumer), key=lambda one: one.rank)
        assert not lower.division_code.startswith(upper.area)


def test_departments_of_one_level_exchange_horizontally_across_regions_too() -> None:
    city = DepartmentProfile(id="a", rank=2, division_code="330100", area="3301")
    other = DepartmentProfile(id="b", rank=2, division_code="520100", area="5201")
    county = DepartmentProfile(id="c", rank=3, division_code="520101", area="520101")
    assert flow_of(city, other) is Flow.HORIZONTAL
    assert flow_of(city, county) is Flow.HORIZONTAL, "of another city"
    assert flow_of(other, county) is Flow.VERTICAL_DOWN
