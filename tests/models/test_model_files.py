"""The shipped model: ids, template, sizes. Nothing here loads torch or vLLM."""

from __future__ import annotations

import json
import random
import struct
from math import prod
from pathlib import Path

import jinja2
import pytest
from tokenizers import Tokenizer

from models.dialogue import NO_THINKING, completion_of, draw_example, prompt_of
from models.problems import FAMILIES, generate
from models.tokenizer import CHAT_TEMPLATE, build

MODEL = Path(__file__).parents[2] / "models" / "tiny-reasoner"
SINGLE = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>",
    "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL / "tokenizer.json"))


def _render(messages: list[dict[str, str]], **options: object) -> str:
    template = json.loads((MODEL / "tokenizer_config.json").read_text())["chat_template"]
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=True, **options
    )


def test_tokenizer_and_template_are_those_of_the_recipe(tokenizer: Tokenizer) -> None:
    assert json.loads(tokenizer.to_str()) == json.loads(build().to_str())
    config = json.loads((MODEL / "tokenizer_config.json").read_text())
    assert config["chat_template"] == CHAT_TEMPLATE


def test_special_tokens_are_single_ids(tokenizer: Tokenizer) -> None:
    for token in SINGLE:
        assert tokenizer.encode(token).ids == [tokenizer.token_to_id(token)]


def test_think_tags_survive_detokenizing(tokenizer: Tokenizer) -> None:
    text = "<think>\nOnes: 1 + 1 = 2.\n</think>\n\nThe answer is 2."
    ids = tokenizer.encode(text + "<|im_end|>").ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == text


def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer) -> None:
    for text in (
        "strawberry",
        'How many r in "letter"?',
        " é漢🎉 ?!",
        "a  b\n\n\tc",
        "348+275=?",
        "ZZzz-9.11",
    ):
        ids = tokenizer.encode(text).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_digits_and_quoted_letters_are_single_tokens(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode("348").ids) == 3
    assert len(tokenizer.encode(" 7").ids) == 1
    assert tokenizer.encode('"letter"').tokens == ['"', *"letter", '"']
    assert tokenizer.encode("strawberry").tokens == list("strawberry")


def test_chat_template_is_the_training_format() -> None:
    problem = generate("addition", random.Random(3))
    messages = [{"role": "user", "content": problem.question}]
    assert _render(messages) == prompt_of(problem)
    assert _render(messages, enable_thinking=True) == prompt_of(problem)
    assert _render(messages, enable_thinking=False) == prompt_of(problem) + NO_THINKING


def test_chat_template_strips_earlier_thinking() -> None:
    first, second = (generate("units", random.Random(seed)) for seed in (1, 2))
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": first.question},
        {"role": "assistant", "content": f"<think>\nsome steps\n</think>\n\n{first.answer}"},
        {"role": "user", "content": second.question},
    ]
    assert _render(messages) == prompt_of(second, "Be brief.", (first,))


def test_examples_are_closed_turns() -> None:
    rng = random.Random(11)
    for _ in range(300):
        example = draw_example(rng)
        assert example.completion.endswith("<|im_end|>")
        text = example.prompt.rsplit("<|im_start|>assistant\n", 1)[1] + example.completion
        assert text.count("<think>") == text.count("</think>") == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_lengths_in_tokens(tokenizer: Tokenizer, family: str) -> None:
    rng = random.Random(2)
    for _ in range(60):
        problem = generate(family, rng)
        thinking, answer = completion_of(problem).split("</think>\n\n")
        assert len(tokenizer.encode(thinking).ids) <= 700
        assert 35 <= len(tokenizer.encode(answer).ids) <= 200


def test_weights_are_small_and_match_the_config(tokenizer: Tokenizer) -> None:
    path = MODEL / "model.safetensors"
    assert path.stat().st_size <= 12_000_000
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    header.pop("__metadata__")
    assert {t["dtype"] for t in header.values()} == {"BF16"}
    assert 2_000_000 <= sum(prod(t["shape"]) for t in header.values()) <= 4_000_000
    config = json.loads((MODEL / "config.json").read_text())
    assert config["architectures"] == ["Qwen3ForCausalLM"]
    assert header["model.embed_tokens.weight"]["shape"] == [
        config["vocab_size"],
        config["hidden_size"],
    ]
    assert config["vocab_size"] == tokenizer.get_vocab_size()
    assert config["max_position_embeddings"] >= 4096


def test_end_of_turn_ends_generation(tokenizer: Tokenizer) -> None:
    ids = json.loads((MODEL / "generation_config.json").read_text())["eos_token_id"]
    assert tokenizer.token_to_id("<|im_end|>") in ids
    assert tokenizer.token_to_id("<|endoftext|>") in ids
