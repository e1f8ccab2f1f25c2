"""Algorithm 1 against a literal reading of the paper."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.placement import InstanceView, place_new_request

views = st.lists(
    st.builds(
        InstanceView,
        instance_id=st.uuids().map(str),
        within_slo=st.booleans(),
        kv_footprint_blocks=st.integers(0, 5),
        requests=st.integers(0, 3),
    ),
    max_size=8,
    unique_by=lambda view: view.instance_id,
)


@given(views)
def test_smallest_footprint_among_the_healthy_else_among_all(views: list[InstanceView]) -> None:
    chosen = place_new_request(views)
    if not views:
        assert chosen is None
        return
    pool = [view for view in views if view.within_slo]
    if not pool:
        pool = views
    least = min(view.kv_footprint_blocks for view in pool)
    smallest = [view for view in pool if view.kv_footprint_blocks == least]
    fewest = min(view.requests for view in smallest)
    first = next(view for view in smallest if view.requests == fewest)
    assert chosen == first.instance_id


def test_a_starving_instance_is_avoided_even_if_it_is_emptier() -> None:
    starving = InstanceView("a", False, 1, 1)
    healthy = InstanceView("b", True, 100, 9)
    assert place_new_request([starving, healthy]) == "b"
