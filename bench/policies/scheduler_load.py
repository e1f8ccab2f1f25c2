"""Requests for a scheduler without a model: lengths, phases, and tokens that show the phases.

Three forms of markers: single tokens, sequences of tokens, and headers that name a channel. Must
not know a scheduler.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Final

from vllm.sampling_params import SamplingParams
from vllm.utils.hashing import sha256
from vllm.v1.core.kv_cache_utils import get_request_block_hasher
from vllm.v1.request import Request

from workers.policy.phase import Channels, Markers, Phase
from workers.scheduler.plugin import REQUEST_KEY

BLOCK: Final = 16  # tokens; vLLM's default on GPUs
USERS: Final = 100
PROMPT_IDS: Final = range(1000)
WORD: Final = 1000  # of the output
_NAMES: Final = (1001, 1002, 1003)  # in headers: of the thoughts, of an answer, of a call
_MARKS: Final = range(1010, 1020)  # tokens of markers


@dataclass(frozen=True, slots=True)
class Format:
    """How the output of a model shows its phases, and what it writes where they change."""

    markers: Markers
    answer: tuple[int, ...]  # ends the thoughts
    call: tuple[int, ...]
    called: tuple[int, ...]  # ends the call
    begin: tuple[int, ...] = ()  # first tokens of the output


def _marked(answer: tuple[int, ...], call: tuple[int, ...], called: tuple[int, ...]) -> Format:
    return Format(Markers((), (answer,), (call,), (called,), implicit=True), answer, call, called)


def _channels() -> Format:
    end, start, role, channel, message, recipient = _MARKS[:6]
    thoughts, answer, call = _NAMES
    return Format(
        Markers(
            channels=Channels(
                start=start,
                channel=channel,
                message=message,
                reasoning=((thoughts,),),
                answering=((answer,),),
                recipients=((recipient,),),
            )
        ),
        (end, start, role, channel, answer, message),
        (end, start, role, recipient, channel, call, message),
        (end, start, role, channel, answer, message),
        (channel, thoughts, message),
    )


FORMATS: Final = {
    "tokens": _marked((_MARKS[0],), (_MARKS[1],), (_MARKS[2],)),
    "sequences": _marked(tuple(_MARKS[:3]), tuple(_MARKS[3:6]), tuple(_MARKS[6:9])),
    "channels": _channels(),
}


class Load:
    """Draws requests; the same seed gives the same ones.

    Lengths are like those of Arena-Hard on a 32B reasoning model, widely spread: 950 tokens of
    reasoning and 820 of answer on average (PASCAL, evaluation). Every second request calls a tool
    in the first half of its answer, with 60 tokens on average.
    """

    def __init__(self, seed: int, form: Format) -> None:
        self._rng = random.Random(seed)
        self._form = form
        self._hasher = get_request_block_hasher(BLOCK, sha256)
        self._scripts: dict[str, dict[int, int]] = {}  # tokens of markers by their place

    def fresh(self) -> Request:
        """A request that has just arrived."""
        return self._request(begun=0.0)

    def begun(self) -> Request:
        """A request at a random point of its life, with its tokens so far as part of the prompt."""
        return self._request(begun=self._rng.random())

    def token(self, request: Request) -> int:
        """The next token of a request, as the model would generate it."""
        return self._scripts[request.request_id].get(request.num_output_tokens, WORD)

    def _request(self, begun: float) -> Request:
        name = f"r{len(self._scripts)}"
        prompt = self._length(120, 500)
        reasoning = self._length(950, 2400)
        answer = self._length(820, 1100)
        done = int(begun * (reasoning + answer))
        phase = Phase.REASONING
        script: dict[int, int] = {}
        for at, marker, to in self._turns(reasoning, answer):
            if at < done:
                phase = to
            else:
                script |= {at - done + place: token for place, token in enumerate(marker)}
        self._scripts[name] = script
        request_facts = {
            "request_id": f"own-{name}",
            "phase": phase.value,
            "known_tokens": done,
            "pace": {"tau_s": 0.1},
            "user": f"user-{self._rng.randrange(USERS)}",
        }
        return Request(
            request_id=name,
            prompt_token_ids=self._rng.choices(PROMPT_IDS, k=prompt + done),
            sampling_params=SamplingParams(
                max_tokens=reasoning + answer - done,
                ignore_eos=True,
                detokenize=False,
                extra_args={REQUEST_KEY: request_facts},
            ),
            pooling_params=None,
            block_hasher=self._hasher,
        )

    def _turns(self, reasoning: int, answer: int) -> list[tuple[int, tuple[int, ...], Phase]]:
        """Where the output changes its phase: the place and the tokens of each marker."""
        form = self._form
        at = max(len(form.begin), reasoning - len(form.answer))
        turns = [(0, form.begin, Phase.REASONING), (at, form.answer, Phase.ANSWERING)]
        if self._rng.random() < 0.5:
            at += len(form.answer) + self._rng.randrange(1 + answer // 2)
            turns.append((at, form.call, Phase.CALLING))
            at += len(form.call) + self._length(60, 300)
            turns.append((at, form.called, Phase.ANSWERING))
        return turns

    def _length(self, mean: int, most: int) -> int:
        return min(most, 1 + int(self._rng.gammavariate(2.0, mean / 2.0)))
