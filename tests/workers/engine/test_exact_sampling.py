"""The logits processor alone: it draws from the model's distribution, by the tokens so far."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.sample.logits_processor import BatchUpdate

from workers.engine.exact_sampling import EXACT_KEY, ExactSampling, noise_seed
from workers.scheduler.plugin import REQUEST_KEY

VOCABULARY = 50
CPU = torch.device("cpu")


def params(**exact: Any) -> SamplingParams:
    return SamplingParams(extra_args={REQUEST_KEY: {EXACT_KEY: exact}})


def processor(*added: tuple[dict[str, Any], list[int], list[int]]) -> ExactSampling:
    unused: Any = None
    made = ExactSampling(unused, CPU, False)
    rows = [(row, params(**exact), prompt, out) for row, (exact, prompt, out) in enumerate(added)]
    made.update_state(BatchUpdate(batch_size=len(rows), removed=[], added=rows, moved=[]))
    return made


def logits(rows: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def chosen(given: torch.Tensor) -> list[int]:
    assert (given == float("-inf")).sum(dim=-1).tolist() == [VOCABULARY - 1] * len(given)
    return given.argmax(dim=-1).tolist()


def test_the_noise_of_a_token_depends_on_its_seed_and_its_number() -> None:
    whole: list[int] = []
    for _ in range(20):
        (token,) = chosen(processor(({"seed": 4}, [1, 2], whole)).apply(logits()))
        whole.append(token)
    assert len(set(whole)) > 3
    for cut in (0, 1, 7, 19):
        exact = {"seed": 4, "known": cut}
        parts = processor((exact, [1, 2, *whole[:cut]], whole[cut:-1]))
        assert chosen(parts.apply(logits())) == [whole[-1]]
    assert len({noise_seed(s, p) for s in range(-50, 50) for p in range(50)}) == 5000


def test_what_is_drawn_has_the_distribution_of_the_model() -> None:
    exact = {"seed": 1, "temperature": 0.8, "top_k": 6, "top_p": 0.9, "min_p": 0.05}
    draws: Counter[int] = Counter()
    for position in range(4000):
        draws.update(chosen(processor((exact, [], [0] * position)).apply(logits())))
    wanted = (logits()[0] / 0.8).softmax(-1)
    wanted[wanted < 0.05 * wanted.max()] = 0
    best = wanted.topk(6)
    kept = wanted / wanted.sum()
    assert set(draws) <= set(best.indices[best.values > 0].tolist())
    total = sum(draws.values())
    for token in draws:  # top_p may take away the least likely ones
        assert draws[token] / total >= float(kept[token]) - 0.03


def test_rows_do_not_touch_each_other() -> None:
    one = processor(({"seed": 4}, [], [3]))
    three = processor(
        ({"known": 1, "frequency": 0.5}, [1, 2], [5, 5]),
        ({"seed": 4}, [], [3]),
        ({"seed": 9, "top_k": 2, "repetition": 1.5}, [1], [7]),
    )
    batch = logits(3)
    alone = one.apply(batch[1:2].clone())
    result = three.apply(batch.clone())
    assert chosen(result[1:2]) == chosen(alone)
    changed = (result[0] != batch[0]).nonzero().flatten().tolist()
    assert changed == [2, 5]  # 2 is known output, and 5 came twice
    assert result[0, 5] == batch[0, 5] - 1.0
    assert result[0, 2] == batch[0, 2] - 0.5


def test_penalties_of_known_tokens_are_those_of_generated_ones() -> None:
    exact = {"presence": 0.3, "frequency": 0.5, "repetition": 1.4}
    stayed = processor((exact | {"known": 0}, [9, 8], [5, 6, 5]))
    moved = processor((exact | {"known": 2}, [9, 8, 5, 6], [5]))
    assert torch.equal(stayed.apply(logits()), moved.apply(logits()))


@pytest.mark.parametrize(
    "exact", [{"known": -1}, {"seed": "x"}, {"temperature": 0.0}, {"top_p": 2.0}, 7]
)
def test_wrong_facts_are_refused_before_they_reach_a_step(exact: Any) -> None:
    wrong = SamplingParams(extra_args={REQUEST_KEY: {EXACT_KEY: exact}})
    with pytest.raises(ValueError, match="exact"):
        ExactSampling.validate_params(wrong)
    ExactSampling.validate_params(SamplingParams())
