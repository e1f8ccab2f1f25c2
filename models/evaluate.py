"""Measures the embedded model on held-out problems: greedy decoding through vLLM.

    python -m models.evaluate [--per-family N] [--dtype float32|bfloat16] [--json FILE]

Prints for each family the accuracy, the share of well-formed completions, and the lengths of
thinking and answer in tokens; then the accuracy with tools and in conversations of 20 turns. A
well-formed completion has one closed think block, an answer and an end of the turn. Problems come
from the tenth that training never sees (see `models.problems`).
"""

from __future__ import annotations

import argparse
import json
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from models import judge
from models.dialogue import END_THINK, IM_END, NO_THINKING, THINK, prompt_of
from models.problems import FAMILIES, Problem, generate, is_correct

MODEL = Path(__file__).parent / "tiny-reasoner"
PERCENTILES = (5, 50, 95)
Generate = Callable[[list[str]], list["Completion"]]


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model wrote: the text with its think tags, and the ids."""

    text: str
    token_ids: tuple[int, ...]
    finished: bool


@dataclass(frozen=True, slots=True)
class Score:
    """One row of the table. Shares lie in [0, 1], lengths are tokens at p5, p50, p95."""

    name: str
    problems: int
    accuracy: float
    well_formed: float
    reasoning_tokens: tuple[int, int, int]
    answer_tokens: tuple[int, int, int]


def _three_digits(problem: Problem) -> bool:
    """True when both operands have three digits."""
    return all(len(operand) == 3 for operand in problem.key.split()[1:])


def draw(
    family: str, count: int, seed: int, keep: Callable[[Problem], bool] = lambda _: True
) -> list[Problem]:
    """`count` different held-out problems of a family, or all if there are fewer."""
    rng = random.Random(f"{seed}:{family}")
    found: dict[str, Problem] = {}
    for _ in range(200 * count):
        problem = generate(family, rng, split="held_out")
        if keep(problem):
            found.setdefault(problem.question, problem)
        if len(found) == count:
            break
    return list(found.values())


def _percentiles(values: Sequence[int]) -> tuple[int, int, int]:
    ordered = sorted(values) or [0]
    low, mid, high = (ordered[round(p / 100 * (len(ordered) - 1))] for p in PERCENTILES)
    return low, mid, high


def well_formed(completion: Completion, thinking: bool = True) -> bool:
    """One think block that is closed, a non-empty answer after it, and a proper end."""
    opens, closes = completion.text.count(THINK), completion.text.count(END_THINK)
    answer = completion.text.rsplit(END_THINK, 1)[-1].strip()
    right_tags = (
        (opens, closes) == (1, 1) and completion.text.startswith(THINK)
        if thinking
        else opens + closes == 0
    )
    return completion.finished and right_tags and bool(answer)


def score(
    name: str,
    problems: Sequence[Problem],
    completions: Sequence[Completion],
    end_think: int,
    thinking: bool = True,
) -> Score:
    """Judge the completions of one family. A completion that is not well-formed is wrong."""
    formed = [well_formed(c, thinking) for c in completions]
    right = [
        f and is_correct(p, c.text) for f, p, c in zip(formed, problems, completions, strict=True)
    ]
    reasoning, answers = [], []
    for completion in completions:
        ids = completion.token_ids
        cut = ids.index(end_think) if end_think in ids else (len(ids) if thinking else -1)
        reasoning.append(max(cut - 1, 0))
        answers.append(max(len(ids) - cut - 2, 0))
    n = len(problems)
    return Score(
        name, n, sum(right) / n, sum(formed) / n, _percentiles(reasoning), _percentiles(answers)
    )


def engine(model: Path, dtype: Literal["float32", "bfloat16"]) -> tuple[Generate, int]:
    """A function that completes prompts through vLLM, and the id of the end of thinking."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from vllm import LLM, SamplingParams  # after the environment is set

    llm = LLM(
        model=str(model),
        dtype=dtype,
        enforce_eager=True,
        max_model_len=4096,
        max_num_seqs=256,
        seed=0,
    )
    params = SamplingParams(temperature=0, max_tokens=1200, skip_special_tokens=False)

    def complete(prompts: list[str]) -> list[Completion]:
        found = []
        for output in llm.generate(prompts, params, use_tqdm=False):
            first = output.outputs[0]
            found.append(
                Completion(
                    first.text.replace(IM_END, ""),
                    tuple(first.token_ids),
                    first.finish_reason == "stop",
                )
            )
        return found

    return complete, int(llm.get_tokenizer().convert_tokens_to_ids(END_THINK))


def run(
    complete: Generate,
    end_think: int,
    per_family: int,
    seed: int,
    thinking: bool = True,
    wrong: list[tuple[Problem, str]] | None = None,
) -> list[Score]:
    """Scores of each family, of three-digit addition and subtraction, and of all families."""
    sets = [(family, draw(family, per_family, seed)) for family in FAMILIES]
    sets += [
        (f"{f}, 3 digits", draw(f, per_family, seed + 1, _three_digits))
        for f in ("addition", "subtraction")
    ]
    suffix = "" if thinking else NO_THINKING
    every_problem: list[Problem] = []
    every_completion: list[Completion] = []
    scores = []
    for name, problems in sets:
        completions = complete([prompt_of(problem) + suffix for problem in problems])
        scores.append(score(name, problems, completions, end_think, thinking))
        if wrong is not None:
            wrong += [
                (p, c.text)
                for p, c in zip(problems, completions, strict=True)
                if not is_correct(p, c.text)
            ]
        if name in FAMILIES:
            every_problem += problems
            every_completion += completions
    return [*scores, score("all families", every_problem, every_completion, end_think, thinking)]


def table(scores: Sequence[Score]) -> str:
    """The scores as a Markdown table."""
    lines = [
        "| family | problems | correct | well-formed "
        "| reasoning tokens p5/50/95 | answer tokens p5/50/95 |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for s in scores:
        reasoning, answer = ("/".join(map(str, t)) for t in (s.reasoning_tokens, s.answer_tokens))
        lines.append(
            f"| {s.name} | {s.problems} | {s.accuracy:.1%} | {s.well_formed:.1%} "
            f"| {reasoning} | {answer} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--per-family", type=int, default=200, help="problems of each family")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument(
        "--only", choices=("exercises", "tools", "conversations"), help="measure only these"
    )
    parser.add_argument("--no-thinking", action="store_true", help="ask with enable_thinking false")
    parser.add_argument("--json", type=Path, help="write the scores to this file too")
    parser.add_argument(
        "--wrong", type=Path, help="write wrong completions to this file, to learn from them"
    )
    args = parser.parse_args()
    complete, end_think = engine(args.model, args.dtype)
    wrong: list[tuple[Problem, str]] = []
    mistakes: list[str] = []
    found: list[object] = []

    def plain(prompts: list[str]) -> list[tuple[str, bool]]:
        return [(c.text, c.finished) for c in complete(prompts)]

    if args.only in (None, "exercises"):
        scores = run(complete, end_think, args.per_family, args.seed, not args.no_thinking, wrong)
        print(table(scores), flush=True)
        found += [asdict(s) for s in scores]
    if args.only in (None, "tools") and not args.no_thinking:
        rows = judge.all_tools(plain, args.per_family, args.seed, mistakes)
        print("", judge.table(rows, "tools"), sep="\n", flush=True)
        found += [asdict(row) for row in rows]
    if args.only in (None, "conversations") and not args.no_thinking:
        talks = max(args.per_family // judge.TURNS, 1)
        rows = judge.conversations(plain, talks, args.seed, mistakes)
        print("", judge.table(rows, "conversations"), sep="\n", flush=True)
        found += [asdict(row) for row in rows]
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n")
    if args.wrong:
        exercises = [f"[{p.family}] {p.question}\n{t}\nexpected {p.expected}" for p, t in wrong]
        args.wrong.write_text("\n\n=====\n".join([*exercises, *mistakes]))


if __name__ == "__main__":
    main()
