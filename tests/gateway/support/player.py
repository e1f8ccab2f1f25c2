"""A scripted worker that answers every request by itself: thoughts, an answer, and calls of tools.

What it writes depends on the request alone, so that a test knows the whole text beforehand.
"""

from __future__ import annotations

import asyncio

import msgspec
from websockets.exceptions import ConnectionClosed

from tests.gateway.support.scripted_worker import ScriptedWorker
from workers.messages import (
    Accepted,
    Cancel,
    Count,
    Counted,
    Detokenize,
    Detokenized,
    Finish,
    Piece,
    Rejected,
    Submit,
    TokenLogprob,
    TokenRun,
    Turn,
    answers_after,
)

THOUGHTS = ("First", ", I", " add", ".")
ANSWER = ("It ", 'is "', "623", '",\n', "so.")
ARGUMENTS = '{"a": 1}'
LONGEST = 20_000  # characters of a conversation; a longer one is refused
SLOW = "slow"  # the first word of a request whose tokens come one after another
SLOW_ANSWER = ANSWER * 20


class Player:
    """Plays the engine of one worker.

    :param gap_s: between two tokens of a slow request.
    """

    def __init__(self, worker: ScriptedWorker, gap_s: float = 0.01) -> None:
        self.worker = worker
        self.seen = 0  # requests
        self._gap_s = gap_s
        self._running: dict[str, asyncio.Task[None]] = {}
        self._places: dict[str, int] = {}

    async def run(self) -> None:
        """Answer until the link ends."""
        try:
            async with asyncio.TaskGroup() as tasks:
                while True:
                    match await self.worker.received():
                        case Submit() as submit:
                            self.seen += 1
                            task = tasks.create_task(self._play(submit))
                            self._running[submit.request_id] = task
                        case Cancel(request_id=name):
                            await self._cancel(name)
                        case Count() as question:
                            await self._count(question)
                        case Detokenize(request_id=name, token_ids=tokens):
                            text = "a" * len(tokens)
                            await self.worker.say(Detokenized(request_id=name, text=text))
        except* ConnectionClosed:
            pass

    async def _count(self, question: Count) -> None:
        tokens = _length(question.prompt)
        counted = Counted(
            request_id=question.prompt.request_id,
            prompt_tokens=tokens,
            token_ids=tuple(range(tokens)) if question.tokens else (),
            names=("a",) * tokens if question.names else (),
        )
        await self.worker.say(counted)

    async def _cancel(self, name: str) -> None:
        task = self._running.pop(name, None)
        if task is None:
            return
        task.cancel()
        if name not in self._places:
            self._places[name] = 0
            await self.worker.say(Accepted(request_id=name, prompt_tokens=20, reasoning=True))
        await self._say(name, (), finish=Finish(reason="cancelled"))

    async def _play(self, submit: Submit) -> None:
        name = submit.request_id
        if _length(submit) > LONGEST:
            self._running.pop(name)
            refusal = Rejected(
                request_id=name,
                code="context_length_exceeded",
                message="The prompt is too long.",
                param="messages",
            )
            await self.worker.say(refusal)
            return
        thinks = submit.thinking is not False and submit.prompt is None
        # Before what is sent: a cancel may come while it is.
        self._places[name] = 0
        await self.worker.say(Accepted(request_id=name, prompt_tokens=20, reasoning=thinks))
        slow = bool(submit.messages) and submit.messages[-1].content.startswith(SLOW)
        parts: list[tuple[tuple[str, ...], int | None]] = [(SLOW_ANSWER if slow else ANSWER, None)]
        if thinks:
            parts.insert(0, ((*THOUGHTS, ""), len(THOUGHTS)))
        most = submit.sampling.max_tokens
        for texts, boundary in parts:
            for start in range(0, len(texts), 1 if slow else len(texts)):
                some = texts[start : start + 1] if slow else texts
                at = None
                if boundary is not None and start <= boundary < start + len(some):
                    at = boundary - start
                await self._say(name, some, boundary=at, logprobs=submit.sampling.logprobs)
                if slow:
                    await asyncio.sleep(self._gap_s)
        if submit.tools and submit.tool_choice.mode != "none":
            await self._call(submit)
        cut = most is not None and most <= self._places[name]
        self._running.pop(name)
        await self._say(name, (), finish=Finish(reason="length" if cut else "stop"))

    async def _call(self, submit: Submit) -> None:
        """Call the first tool."""
        tool, place = submit.tools[0]["function"]["name"], self._places[submit.request_id]
        pieces = (Piece(at=0, kind="call", name=tool), Piece(at=1, kind="call", text=ARGUMENTS))
        run = TokenRun(
            request_id=submit.request_id,
            position=place,
            token_ids=(place, place + 1),
            texts=("", ARGUMENTS),
            turns=(Turn(at=0, phase="calling"),),
            pieces=pieces,
            logprobs=_logprobs(("", ARGUMENTS), submit.sampling.logprobs),
        )
        self._places[submit.request_id] += 2
        await self.worker.step(run)

    async def _say(
        self,
        name: str,
        texts: tuple[str, ...],
        *,
        boundary: int | None = None,
        finish: Finish | None = None,
        logprobs: int | None = None,
    ) -> None:
        place = self._places.pop(name) if finish is not None else self._places[name]
        if finish is None:
            self._places[name] = place + len(texts)
        run = TokenRun(
            request_id=name,
            position=place,
            token_ids=tuple(range(place, place + len(texts))),
            texts=texts,
            finish=finish,
            turns=answers_after(boundary),
            logprobs=_logprobs(texts, logprobs),
        )
        await self.worker.step(run)


def _length(submit: Submit) -> int:
    plain = len(submit.prompt.token_ids or submit.prompt.text) if submit.prompt else 0
    return 1 + plain + sum(len(message.content) for message in submit.messages)


def _logprobs(texts: tuple[str, ...], top: int | None) -> tuple[TokenLogprob, ...]:
    """One for each token, with so many alternatives; None: none were asked for."""
    if top is None:
        return ()
    plain = [TokenLogprob(token=text, logprob=-0.5, data=tuple(text.encode())) for text in texts]
    return tuple(msgspec.structs.replace(one, top=(one,) * top) for one in plain)
