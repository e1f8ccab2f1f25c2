"""Trains the embedded model from random weights, on one processor core.

    python -m models.train --work FOLDER --minutes 80

Problems are drawn when needed and never repeat. Muon trains the matrices, AdamW the embedding and
the norms. The learning rate falls to zero over the time budget.

Every few minutes the folder gets a checkpoint (`state.pt`) and a loadable model; the same command
continues from there. `python -m models.export` installs the finished model.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from models import tokenizer as tokenizers_of_ours
from models.architecture import Reasoner, Shape, rotary
from models.dialogue import END_THINK, WEIGHTS, draw_example
from models.export import export

MAX_TOKENS = 1024
CHUNK = 3000
"""Conversations that are drawn and sorted by length at a time."""
FULL_ANSWERS = 0.3
"""The share of answers learned to the end; of the others only the start, which holds the result."""
ANSWER_START = 20
LEARNING_RATE = 2e-3
WARM_UP_STEPS = 40
DECAY_FROM = 0.35


@dataclass(slots=True)
class Progress:
    """The progress of training; saved with each checkpoint."""

    step: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0
    chunk: int = 0
    batch_in_chunk: int = 0
    loss: float = field(default=7.0)


def _encode(
    tokenizer: Tokenizer, seed: str, weights: dict[str, float]
) -> list[tuple[list[int], int]]:
    """One chunk of conversations as (ids, number of prompt ids)."""
    rng = random.Random(seed)
    examples = [draw_example(rng, weights) for _ in range(CHUNK)]
    prompts = tokenizer.encode_batch([e.prompt for e in examples])
    completions = tokenizer.encode_batch([e.completion for e in examples])
    end_think = tokenizer.token_to_id(END_THINK)
    documents = []
    for prompt, completion in zip(prompts, completions, strict=True):
        ids = completion.ids
        if end_think in ids and rng.random() > FULL_ANSWERS:
            ids = ids[: ids.index(end_think) + ANSWER_START]
        if len(prompt.ids) + len(ids) <= MAX_TOKENS:
            documents.append((prompt.ids + ids, len(prompt.ids)))
    return documents


def _collate(documents: list[tuple[list[int], int]]) -> tuple[Tensor, Tensor, Tensor]:
    """Padded ids, the flat positions to learn, and the token after each of them."""
    width = max(len(ids) for ids, _ in documents)
    ids = torch.zeros(len(documents), width, dtype=torch.int64)
    places: list[int] = []
    targets: list[int] = []
    for row, (tokens, prompt) in enumerate(documents):
        ids[row, : len(tokens)] = torch.tensor(tokens)
        places += range(row * width + prompt - 1, row * width + len(tokens) - 1)
        targets += tokens[prompt:]
    return ids, torch.tensor(places), torch.tensor(targets)


def batches(
    tokenizer: Tokenizer, seed: int, progress: Progress, size: int, weights: dict[str, float]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Endless batches of about `size` tokens, each of conversations of about one length."""
    while True:
        documents = sorted(
            _encode(tokenizer, f"{seed}:{progress.chunk}", weights), key=lambda d: len(d[0])
        )
        groups: list[list[tuple[list[int], int]]] = [[]]
        for document in documents:
            if len(document[0]) * (len(groups[-1]) + 1) > size:
                groups.append([])
            groups[-1].append(document)
        random.Random(f"{seed}:{progress.chunk}:order").shuffle(groups)
        while progress.batch_in_chunk < len(groups):
            progress.batch_in_chunk += 1
            if groups[progress.batch_in_chunk - 1]:
                yield _collate(groups[progress.batch_in_chunk - 1])
        progress.chunk, progress.batch_in_chunk = progress.chunk + 1, 0


def _optimizers(model: Reasoner) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(
            matrices,
            lr=LEARNING_RATE,
            weight_decay=0.02,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _set_rate(optimizers: list[torch.optim.Optimizer], progress: Progress, budget_s: float) -> None:
    """Warm up over the first steps, then fall linearly to zero at the end of the budget."""
    left = 1 - progress.elapsed_s / budget_s
    rate = (
        LEARNING_RATE
        * min(1.0, (progress.step + 1) / WARM_UP_STEPS)
        * min(1.0, left / (1 - DECAY_FROM))
    )
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = max(rate, 0.0)


def _save(
    folder: Path, model: Reasoner, optimizers: list[torch.optim.Optimizer], progress: Progress
) -> None:
    """Write checkpoint and loadable model, each to a temporary name and then moved."""
    state = {
        "model": model.state_dict(),
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
        "progress": {name: getattr(progress, name) for name in Progress.__slots__},
    }
    torch.save(state, folder / "state.new")
    (folder / "state.new").replace(folder / "state.pt")
    export(model, folder)


def _load(folder: Path, model: Reasoner, optimizers: list[torch.optim.Optimizer]) -> Progress:
    if not (folder / "state.pt").exists():
        return Progress()
    state = torch.load(folder / "state.pt", weights_only=True)
    model.load_state_dict(state["model"])
    for optimizer, saved in zip(optimizers, state["optimizers"], strict=True):
        optimizer.load_state_dict(saved)
    return Progress(**state["progress"])


def train(args: argparse.Namespace) -> None:
    """Train until the budget is used up; see the module's docstring."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "tokenizer.json").exists():
        tokenizers_of_ours.save(tokenizers_of_ours.build(), args.work)
    tokenizer = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    shape = Shape(
        vocab=tokenizer.get_vocab_size(),
        hidden=args.hidden,
        layers=args.layers,
        mlp=args.mlp,
        heads=args.heads,
    )
    model = Reasoner(shape)
    optimizers = _optimizers(model)
    progress = _load(args.work, model, optimizers)
    weights = WEIGHTS | json.loads(args.weights)
    step_fn = torch.compile(model, dynamic=True) if args.compile else model
    cos, sin = rotary(shape, MAX_TOKENS)
    print(
        f"{sum(p.numel() for p in model.parameters())} parameters, from step {progress.step}",
        flush=True,
    )
    source = batches(tokenizer, args.seed, progress, args.batch_tokens, weights)
    mark = reported = saved = time.monotonic()
    while progress.elapsed_s < args.minutes * 60:
        _set_rate(optimizers, progress, args.minutes * 60)
        ids, places, targets = next(source)
        loss = step_fn(ids, cos, sin, places, targets) / len(targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        now = time.monotonic()
        progress.elapsed_s, mark = progress.elapsed_s + now - mark, now
        progress.step += 1
        progress.tokens += ids.numel()
        progress.loss += 0.03 * (loss.item() - progress.loss)
        if now - reported > args.report_s:
            print(
                f"step {progress.step} {progress.elapsed_s:.0f} s loss {progress.loss:.4f} "
                f"{progress.tokens / 1e6:.2f} M tokens "
                f"{progress.tokens / progress.elapsed_s:.0f} tokens/s",
                flush=True,
            )
            reported = now
        if now - saved > args.save_s:
            _save(args.work, model, optimizers, progress)
            saved = time.monotonic()
    _save(args.work, model, optimizers, progress)
    print(
        f"done: step {progress.step}, loss {progress.loss:.4f}, {progress.tokens} tokens",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--work", type=Path, required=True, help="folder for checkpoints and the model"
    )
    parser.add_argument(
        "--minutes", type=float, default=80, help="time budget over all runs in the folder"
    )
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-tokens", type=int, default=4096)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--mlp", type=int, default=640)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument(
        "--weights", default="{}", help='JSON that overrides family weights, e.g. {"sorting": 20}'
    )
    parser.add_argument("--report-s", type=float, default=30)
    parser.add_argument("--save-s", type=float, default=240)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
