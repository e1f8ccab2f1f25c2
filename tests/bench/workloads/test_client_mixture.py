from __future__ import annotations

import random
import statistics
from itertools import islice, pairwise, takewhile
from math import gamma, sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.workloads.arrivals import Arrival
from bench.workloads.client_mixture import LEAST_SHAPE, Client, ClientMixture, Family, Window
from bench.workloads.distributions import Quantiles
from bench.workloads.lengths import Lengths, SharedLengths


def exactly(prompt: int) -> SharedLengths:
    """Requests of 10 + 10 tokens whose prompt length identifies the client."""
    law, output, half = (Quantiles((0, 1), (value, value)) for value in (prompt, 20, 0.5))
    return SharedLengths(law, output, half)


def steady(
    name: str, rate: float, shape: float, family: Family = "Gamma", prompt: int = 1
) -> Client:
    return Client(name, (Window(0.0, rate, family, shape, exactly(prompt)),))


def until(
    mixture: ClientMixture, end_s: float, seed: int | str, rate: float | None = None
) -> list[Arrival]:
    return list(takewhile(lambda arrival: arrival.at_s < end_s, mixture.arrivals(rate, seed)))


clients = st.lists(
    st.tuples(
        st.lists(st.floats(0.01, 20) | st.just(0.0), min_size=3, max_size=3),
        st.sampled_from(["Gamma", "Weibull"]),
        st.floats(0.3, 5),
    ),
    min_size=1,
    max_size=4,
).filter(lambda found: any(any(rates) for rates, _, _ in found))


def mixture_of(found: list[tuple[list[float], Family, float]]) -> ClientMixture:
    return ClientMixture(
        tuple(
            Client(
                str(number),
                tuple(
                    Window(600 + 10.0 * turn, rate, family, shape, exactly(number + 1))
                    for turn, rate in enumerate(rates)
                ),
            )
            for number, (rates, family, shape) in enumerate(found)
        ),
        600.0,
        630.0,
    )


@settings(max_examples=25)
@given(found=clients, seed=st.integers(), rate=st.none() | st.floats(0.1, 50))
def test_requests_come_by_time_from_clients_that_send(
    found: list[tuple[list[float], Family, float]], seed: int, rate: float | None
) -> None:
    mixture = mixture_of(found)
    arrivals = list(islice(mixture.arrivals(rate, seed), 200))
    assert arrivals == list(islice(mixture.arrivals(rate, seed), 200))
    times = [arrival.at_s for arrival in arrivals]
    assert times == sorted(times)
    assert times[0] >= 0
    for arrival in arrivals:
        assert arrival.client is not None
        rates, _, _ = found[int(arrival.client)]
        assert arrival.lengths == Lengths(int(arrival.client) + 1, 10, 10)
        # At the very edge of a window rounding decides which one it is.
        turn = int(arrival.at_s % 30 // 10)
        edge = abs(arrival.at_s / 10 - round(arrival.at_s / 10)) < 1e-9
        assert rates[turn] > 0 or edge


def test_the_rate_is_the_clients_mean_over_their_windows() -> None:
    mixture = mixture_of([([1.0, 0.0, 5.0], "Gamma", 1.0), ([0.0, 3.0, 0.0], "Weibull", 1.0)])
    assert mixture.rate == pytest.approx(3.0)
    assert len(until(mixture, 3000, 1)) == pytest.approx(9000, rel=0.05)
    by_window = [0, 0, 0]
    for arrival in until(mixture, 3000, 2, rate=6.0):
        by_window[int(arrival.at_s % 30 // 10)] += 1
    # Twice the rate, of every window.
    assert by_window == [
        pytest.approx(2000, rel=0.1),
        pytest.approx(6000, rel=0.1),
        pytest.approx(10_000, rel=0.1),
    ]


@pytest.mark.parametrize(
    ("family", "shape", "cv"),
    [
        ("Gamma", 0.25, 2.0),
        ("Gamma", 4.0, 0.5),
        ("Weibull", 2.0, sqrt(gamma(2.0) / gamma(1.5) ** 2 - 1)),
        ("Weibull", 0.6, sqrt(gamma(1 + 2 / 0.6) / gamma(1 + 1 / 0.6) ** 2 - 1)),
    ],
)
def test_gaps_are_spread_as_fitted(family: Family, shape: float, cv: float) -> None:
    mixture = ClientMixture((steady("a", 4.0, shape, family),), 0.0, 600.0)
    for rate in (None, 0.5):  # another rate stretches them all
        times = [arrival.at_s for arrival in islice(mixture.arrivals(rate, 9), 20_000)]
        gaps = [b - a for a, b in pairwise(times)]
        assert statistics.fmean(gaps) == pytest.approx(1 / (rate or 4.0), rel=0.05)
        assert statistics.pstdev(gaps) / statistics.fmean(gaps) == pytest.approx(cv, rel=0.07)


@pytest.mark.parametrize(("family", "shape"), [("Gamma", 0.05), ("Weibull", 0.4), ("Gamma", 20.0)])
def test_no_client_begins_with_a_burst_or_with_a_lull(family: Family, shape: float) -> None:
    """On average over many seeds, the first seconds have the same rate as later ones."""
    many = tuple(steady(str(number), 0.1, shape, family) for number in range(4000))
    found = until(ClientMixture(many, 0.0, 600.0), 1.0, 4)
    assert len(found) == pytest.approx(400, rel=0.25)


def test_a_gap_of_many_turns_is_not_waited_for() -> None:
    """The longest tail that is allowed: its gaps outlast the age of the universe."""
    window = Window(0.0, 1.0, "Weibull", LEAST_SHAPE, exactly(1))
    silent = Window(10.0, 0.0, "Gamma", 1.0, exactly(1))
    mixture = ClientMixture((Client("a", (window, silent)),), 0.0, 20.0)
    times = [next(mixture.arrivals(None, seed)).at_s for seed in range(20)]
    assert max(times) > 1e20
    rare = ClientMixture((steady("b", 1.0, 1.0),), 0.0, 600.0)
    found = [arrival.at_s for arrival in islice(rare.arrivals(1e-9, 1), 2000)]
    assert found[-1] == pytest.approx(2000 / 1e-9, rel=0.1)


def test_a_client_s_requests_do_not_depend_on_who_else_there_is() -> None:
    one, other = steady("one", 2.0, 0.5), steady("other", 3.0, 1.5)
    alone = until(ClientMixture((one,), 0.0, 600.0), 50, 8)
    both = until(ClientMixture((one, other), 0.0, 600.0), 50, 8)
    assert [arrival for arrival in both if arrival.client == "one"] == alone


def test_lengths_are_drawn_by_requests() -> None:
    mixture = ClientMixture(
        (steady("a", 1.0, 1.0, prompt=5), steady("b", 3.0, 1.0, prompt=6)), 0.0, 600.0
    )
    rng = random.Random(0)
    prompts = [mixture.draw(rng).prompt for _ in range(8000)]
    assert prompts.count(6) == pytest.approx(6000, rel=0.03)
    assert mixture.longest_output == 20


def test_a_part_of_the_span() -> None:
    whole = mixture_of([([1.0, 0.0, 5.0], "Gamma", 1.0)])
    part = whole.between(605.0, 625.0)
    assert [(w.start_s, w.rate) for w in part.clients[0].windows] == [
        (605.0, 1.0),
        (610.0, 0.0),
        (620.0, 5.0),
    ]
    assert part.rate == pytest.approx((5 * 1 + 5 * 5) / 20)
    assert whole.between(600.0, 630.0).rate == whole.rate
    for start_s, end_s in ((0.0, 620.0), (610.0, 640.0), (620.0, 620.0)):
        with pytest.raises(ValueError, match="is not part of 600-630 s"):
            whole.between(start_s, end_s)
    with pytest.raises(ValueError, match="no client sends anything"):
        whole.between(610.0, 620.0)


def test_windows_that_do_not_fit() -> None:
    window = Window(0.0, 1.0, "Gamma", 1.0, exactly(1))
    with pytest.raises(ValueError, match="no client sends"):
        ClientMixture((), 0.0, 600.0)
    for start_s, end_s in ((100.0, 600.0), (0.0, 0.0)):
        with pytest.raises(ValueError, match="client a do not fit the span"):
            ClientMixture((Client("a", (window,)),), start_s, end_s)
    with pytest.raises(ValueError, match="do not follow each other"):
        ClientMixture((Client("a", (window, window)),), 0.0, 600.0)
