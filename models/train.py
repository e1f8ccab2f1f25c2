"""Trains the embedded model on one processor core, from the shipped weights or from random ones.

    python -m models.train --work FOLDER --minutes 80 --start models/tiny-reasoner

Problems are drawn when needed and never repeat. Muon trains the matrices, AdamW the embedding and
the norms. The learning rate falls to zero over the time budget, which counts the time of the clock.

Every few minutes the folder gets a checkpoint (`state.pt`) and a loadable model; the same command
continues from there. `python -m models.export` installs the finished model.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer

from models import tokenizer as tokenizers_of_ours
from models.architecture import Reasoner, Shape, rotary
from models.dialogue import WEIGHTS
from models.documents import MIX, POSITIONS, batches
from models.export import export

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


def _optimizers(model: Reasoner, rate: float) -> list[torch.optim.Optimizer]:
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    others = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    return [
        torch.optim.Muon(
            matrices,
            lr=rate,
            weight_decay=0.02,
            momentum=0.95,
            adjust_lr_fn="match_rms_adamw",
        ),
        torch.optim.AdamW(others, lr=rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _set_rate(
    optimizers: list[torch.optim.Optimizer], progress: Progress, budget_s: float, highest: float
) -> None:
    """Warm up over the first steps, then fall linearly to zero at the end of the budget."""
    left = 1 - progress.elapsed_s / budget_s
    rate = (
        highest * min(1.0, (progress.step + 1) / WARM_UP_STEPS) * min(1.0, left / (1 - DECAY_FROM))
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


def _start_from(folder: Path, model: Reasoner, tokenizer: Tokenizer) -> None:
    """Take over the weights of a model; a new token starts as the mean of its old tokens."""
    weights = {
        n.removeprefix("model."): w.float()
        for n, w in load_file(folder / "model.safetensors").items()
    }
    old = Tokenizer.from_file(str(folder / "tokenizer.json"))
    table = weights["embed_tokens.weight"]
    known, rows = old.get_vocab(), []
    for i in range(tokenizer.get_vocab_size()):
        piece = tokenizer.id_to_token(i)
        text = tokenizer.decode([i], skip_special_tokens=False)
        ids = [known[piece]] if piece in known else old.encode(text).ids
        rows.append(table[ids].mean(0))
    weights["embed_tokens.weight"] = torch.stack(rows)
    model.load_state_dict(weights)


def _model(args: argparse.Namespace, tokenizer: Tokenizer) -> Reasoner:
    """The model to begin with."""
    model = Reasoner(
        Shape(
            vocab=tokenizer.get_vocab_size(),
            hidden=args.hidden,
            layers=args.layers,
            mlp=args.mlp,
            heads=args.heads,
        )
    )
    if args.start and not (args.work / "state.pt").exists():
        _start_from(args.start, model, tokenizer)
    return model


def train(args: argparse.Namespace) -> None:
    """Train until the budget is used up; see the module's docstring."""
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    args.work.mkdir(parents=True, exist_ok=True)
    if not (args.work / "tokenizer.json").exists():
        base = args.start / "tokenizer.json" if args.start else None
        tokenizers_of_ours.save(tokenizers_of_ours.build(base=base), args.work)
    tokenizer = Tokenizer.from_file(str(args.work / "tokenizer.json"))
    model = _model(args, tokenizer)
    optimizers = _optimizers(model, args.rate)
    progress = _load(args.work, model, optimizers)
    step_fn = torch.compile(model, dynamic=True) if args.compile else model
    cos, sin = rotary(model.s, POSITIONS)
    print(
        f"{sum(p.numel() for p in model.parameters())} parameters, from step {progress.step}",
        flush=True,
    )
    source = batches(
        tokenizer,
        args.seed,
        (progress.chunk, progress.batch_in_chunk),
        args.batch_tokens,
        WEIGHTS | json.loads(args.weights),
        MIX | json.loads(args.mix),
    )
    mark = reported = saved = time.monotonic()
    while progress.elapsed_s < args.minutes * 60:
        _set_rate(optimizers, progress, args.minutes * 60, args.rate)
        batch, (progress.chunk, progress.batch_in_chunk) = next(source)
        turned = (cos[batch.positions].unsqueeze(1), sin[batch.positions].unsqueeze(1))
        loss = step_fn(batch.ids, *turned, batch.mask, batch.places, batch.targets)
        loss = loss / len(batch.targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        now = time.monotonic()
        progress.elapsed_s, mark = progress.elapsed_s + now - mark, now
        progress.step += 1
        progress.tokens += batch.ids.numel()
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
    parser.add_argument(
        "--start", type=Path, help="folder of a model whose weights and vocabulary are taken over"
    )
    parser.add_argument("--rate", type=float, default=LEARNING_RATE, help="highest learning rate")
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
    parser.add_argument("--mix", default="{}", help='JSON like {"tools": 20}, see `documents.MIX`')
    parser.add_argument("--report-s", type=float, default=30)
    parser.add_argument("--save-s", type=float, default=240)
    parser.add_argument("--compile", action=argparse.BooleanOptionalAction, default=True)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
