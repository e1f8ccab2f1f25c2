"""Training documents: conversations as ids, positions and what each token sees; and their batches.

A document is one conversation (see `models.conversation`). Its tokens lie in one row, the branches
between the turns of the main line that they leave, each with the position that it has in serving.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from tokenizers import Tokenizer
from torch import Tensor

from models.architecture import BF16
from models.conversation import MAIN, Conversation, draw_talk, draw_tool_talk
from models.dialogue import END_THINK, IM_START, draw_example
from models.problems.base import weighted
from models.tools.schema import TOOL_CALL

MAX_TOKENS = 2048
POSITIONS = 4096
CHUNK = 1500
"""Conversations that are drawn and sorted by length at a time."""
FULL_ANSWERS = 0.3
"""The share of answers learned to the end; of the others only the start, which holds the result."""
ANSWER_START = 20
GAPS = 0.15
"""The share of long conversations whose positions skip a part, as if more had been said there."""

MIX = {"single": 50.0, "talk": 6.0, "tools": 44.0}
"""How often each kind of conversation is drawn."""
TALK_TURNS = {n: (6.0 if n < 7 else 3.0 if n < 13 else 1.6) for n in range(2, 21)}
TOOL_TURNS = {1: 5.0, 2: 4.0, 3: 2.5, 4: 1.5, 5: 1.0, 6: 0.5}


@dataclass(slots=True)
class Document:
    """One conversation: per token its id, position, branch, and whether it is learned."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    learned: list[bool] = field(default_factory=list)

    @property
    def is_tree(self) -> bool:
        """True if any token is not on the main line."""
        return any(self.branches)


def plain(prompt: list[int], completion: list[int]) -> Document:
    """A document without branches, of which the completion is learned."""
    n = len(prompt) + len(completion)
    learned = [False] * len(prompt) + [True] * len(completion)
    return Document(prompt + completion, list(range(n)), [MAIN] * n, learned)


def _shorten(ids: list[int], tokenizer: Tokenizer) -> list[int]:
    """The thoughts and the start of the answer; a call stays whole."""
    end_think = tokenizer.token_to_id(END_THINK)
    if end_think not in ids or tokenizer.token_to_id(TOOL_CALL) in ids:
        return ids
    return ids[: ids.index(end_think) + ANSWER_START]


def lay_out(
    talk: Conversation, tokenizer: Tokenizer, rng: random.Random, longest: int = MAX_TOKENS
) -> Document | None:
    """The document of a conversation; None if its main line alone is too long.

    Branches are left out at random until the rest fits into `longest` tokens. Some answers are cut
    short, and some conversations get a gap in their positions.
    """
    encoded = [e.ids for e in tokenizer.encode_batch([s.text for s in talk.segments])]
    final = {s.branch: i for i, s in enumerate(talk.segments)}
    for branch, i in final.items():
        if branch != MAIN and rng.random() > FULL_ANSWERS:
            encoded[i] = _shorten(encoded[i], tokenizer)
    sizes: dict[int, int] = {}
    for segment, ids in zip(talk.segments, encoded, strict=True):
        sizes[segment.branch] = sizes.get(segment.branch, 0) + len(ids)
    kept = set(sizes)
    if sizes[MAIN] > longest - 200:
        return None
    while sum(sizes[branch] for branch in kept) > longest and len(kept) > 1:
        kept.discard(rng.choice([b for b in sorted(kept) if b != MAIN]))
    document = Document()
    main, own = 0, dict[int, int]()
    starts = [
        i
        for i, s in enumerate(talk.segments)
        if s.branch == MAIN and s.text.startswith(f"{IM_START}user") and i > 0
    ]
    gap_at, room = -1, POSITIONS - sizes[MAIN] - 600
    if starts and room > 100 and rng.random() < GAPS:
        gap_at = rng.choice(starts)
    for i, (segment, ids) in enumerate(zip(talk.segments, encoded, strict=True)):
        if i == gap_at:
            main += rng.randrange(room)
        if segment.branch not in kept:
            continue
        start = main if segment.branch == MAIN else own.setdefault(segment.branch, main)
        document.ids += ids
        document.positions += range(start, start + len(ids))
        document.branches += [segment.branch] * len(ids)
        document.learned += [segment.learn] * len(ids)
        if segment.branch == MAIN:
            main += len(ids)
        else:
            own[segment.branch] += len(ids)
    return document if any(document.learned) else None


def draw_documents(
    tokenizer: Tokenizer, seed: str, weights: dict[str, float], mix: dict[str, float]
) -> list[Document]:
    """One chunk of documents."""
    rng = random.Random(seed)
    documents: list[Document | None] = []
    for _ in range(CHUNK):
        kind = weighted(rng, list(mix), list(mix.values()))
        if kind == "single":
            example = draw_example(rng, weights)
            prompt, ids = (e.ids for e in tokenizer.encode_batch(list(example)))
            ids = ids if rng.random() < FULL_ANSWERS else _shorten(ids, tokenizer)
            document: Document | None = plain(prompt, ids)
        elif kind == "talk":
            turns = weighted(rng, list(TALK_TURNS), list(TALK_TURNS.values()))
            document = lay_out(draw_talk(rng, turns, weights), tokenizer, rng)
        else:
            turns = weighted(rng, list(TOOL_TURNS), list(TOOL_TURNS.values()))
            document = lay_out(draw_tool_talk(rng, turns), tokenizer, rng)
        documents.append(document)
    return [d for d in documents if d and len(d.ids) <= MAX_TOKENS]


@dataclass(frozen=True, slots=True)
class Batch:
    """Padded rows; see `models.architecture.Reasoner.forward`."""

    ids: Tensor
    positions: Tensor
    mask: Tensor | None
    places: Tensor
    targets: Tensor


def visible(document: Document) -> Tensor:
    """(length, length): what each token sees, as true and false."""
    branches = torch.tensor(document.branches)
    seen = (branches[None, :] == MAIN) | (branches[None, :] == branches[:, None])
    return seen & torch.ones_like(seen).tril()


def collate(documents: list[Document]) -> Batch:
    """The documents as rows of one length."""
    width = max(len(d.ids) for d in documents)
    ids = torch.zeros(len(documents), width, dtype=torch.int64)
    positions = torch.zeros(len(documents), width, dtype=torch.int64)
    places: list[int] = []
    targets: list[int] = []
    for row, d in enumerate(documents):
        ids[row, : len(d.ids)] = torch.tensor(d.ids)
        positions[row, : len(d.ids)] = torch.tensor(d.positions)
        last_of: dict[int, int] = {}
        last_main = 0
        for i, (branch, learned) in enumerate(zip(d.branches, d.learned, strict=True)):
            if learned:
                places.append(row * width + last_of.get(branch, last_main))
                targets.append(d.ids[i])
            last_of[branch] = i
            if branch == MAIN:
                last_main = i
    mask = None
    if any(d.is_tree for d in documents):
        mask = torch.full((len(documents), 1, width, width), float("-inf"), dtype=BF16)
        mask[:, 0].diagonal(dim1=1, dim2=2).fill_(0)
        for row, d in enumerate(documents):
            n = len(d.ids)
            mask[row, 0, :n, :n].masked_fill_(visible(d), 0)
    return Batch(ids, positions, mask, torch.tensor(places), torch.tensor(targets))


def grouped(documents: list[Document], size: int) -> list[list[Document]]:
    """Groups of documents of about one length, each of about `size` tokens with padding.

    With a `size` of at least two documents no group has only one, unless its kind has only one.
    """
    groups: list[list[Document]] = []
    for tree in (False, True):
        group: list[Document] = []
        for document in sorted(
            (d for d in documents if d.is_tree == tree), key=lambda d: len(d.ids)
        ):
            if group and len(document.ids) * (len(group) + 1) > size:
                groups.append(group)
                group = []
            group.append(document)
        if len(group) == 1 and groups and groups[-1][0].is_tree == tree:
            groups[-1] += group  # torch compiles a batch of one anew, which takes minutes
        elif group:
            groups.append(group)
    return groups


def batches(
    tokenizer: Tokenizer,
    seed: int,
    place: tuple[int, int],
    size: int,
    weights: dict[str, float],
    mix: dict[str, float],
) -> Iterator[tuple[Batch, tuple[int, int]]]:
    """Endless batches from `place` (chunk, batch in the chunk), each with the place after it."""
    chunk, first = place
    while True:
        groups = grouped(draw_documents(tokenizer, f"{seed}:{chunk}", weights, mix), size)
        random.Random(f"{seed}:{chunk}:order").shuffle(groups)
        for i, group in enumerate(groups[first:], first + 1):
            yield collate(group), (chunk, i)
        chunk, first = chunk + 1, 0
