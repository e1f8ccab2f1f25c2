"""Lateness of releases, counted in a list, against the Prometheus client's own histogram."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from gateway.lateness import MOST_MS, ReleaseLateness
from gateway.scrape import LatenessCollector

NAME, TEXT = "pascal_release_lateness_seconds", "How late the gateway released a token"
EDGES_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5)
MICROSECONDS = st.integers(-2_000, 3_000_000).map(lambda us: us / 1e6)
LATENESS_S = (
    MICROSECONDS | st.sampled_from(EDGES_S) | st.floats(-1.0, 5.0).map(lambda s: round(s, 9))
)


def rendered(lateness: ReleaseLateness) -> bytes:
    registry = CollectorRegistry()
    registry.register(LatenessCollector(lateness))
    return generate_latest(registry)


@given(st.lists(LATENESS_S))
def test_it_renders_as_a_prometheus_histogram_of_the_same_values(values_s: list[float]) -> None:
    registry = CollectorRegistry()
    histogram = Histogram(NAME, TEXT, buckets=EDGES_S, registry=registry)
    lateness = ReleaseLateness()
    for late_s in values_s:
        histogram.observe(max(0.0, late_s))
        lateness.add(late_s)
    assert rendered(lateness) == generate_latest(registry)


def test_each_millisecond_has_a_count_of_its_own() -> None:
    lateness = ReleaseLateness()
    for late_s in (-5.0, 0.0, 0.0004, 0.001, 0.0011, 0.9995, 1.0, 1.0001, 60.0):
        lateness.add(late_s)
    assert [(ms, count) for ms, count in enumerate(lateness.counts) if count] == [
        (0, 2),
        (1, 2),
        (2, 1),
        (MOST_MS, 2),
        (MOST_MS + 1, 2),
    ]
    assert [lateness.at_most(ms) for ms in (0, 1, 2, 999, 1000)] == [2, 4, 5, 5, 7]
