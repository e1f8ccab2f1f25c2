"""Where the KV of a conversation is: hashes of its beginnings, and what each instance holds.

A *prefix* is the beginning of a conversation: its tools and its first messages. Its hash is made of
what the model is shown of them. So it is the same over every API, and for a client that sends the
whole conversation each time. Thoughts are left out: most models are not shown those of earlier
turns. Workers note the hashes of the prompts they serve, and tell the gateway
(`workers.requests.prefixes`). So several gateways know it, and one that was restarted.

A hash is a hint for placement and nothing else. A wrong one costs a prefill.

What changes with each request at the beginning of a prompt makes every prefix new. `without_nonce`
leaves out what says nothing to the model.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any

import msgspec

from workers.messages import ChatMessage, PlainPrompt

MOST = 64  # prefixes of one conversation: the longest ones
_MOST_EXPECTED = 1024  # of one instance
# The first line of a well-known agent's system prompt, with numbers that change with each request:
# "x-anthropic-billing-header: cc_version=2.1.177.01c; cc_entrypoint=cli; cch=36ee5;".
_BILLING = re.compile(r"x-anthropic-billing-header:(?:[ \t]*[\w.-]+=[^;\s]*(?:;|(?=\s)|$))+\s*")
_encode = msgspec.json.Encoder(order="deterministic").encode


def prefixes_of(
    messages: Sequence[ChatMessage],
    tools: Sequence[Mapping[str, Any]] = (),
    template: Mapping[str, Any] | None = None,
    prompt: PlainPrompt | None = None,
) -> tuple[int, ...]:
    """Hashes of a conversation's beginnings, the shortest first, at most `MOST`.

    :param template: options of the chat template, which may change the text of any message.
    :param prompt: instead of messages; it has no beginning but itself.
    :return: numbers below 2^63; the last one is that of the whole prompt.
    """
    if prompt is not None:
        whole = blake2b(_encode(prompt), digest_size=8)
        return (int.from_bytes(whole.digest(), "big") >> 1,)
    digest = blake2b(_encode((tools, template or {})), digest_size=8)
    hashes = []
    for message in messages:
        calls = [(call.name, call.arguments) for call in message.tool_calls]
        digest.update(_encode((message.role, message.content, message.name, calls)))
        hashes.append(int.from_bytes(digest.digest(), "big") >> 1)
    return tuple(hashes[-MOST:])


def without_nonce(messages: tuple[ChatMessage, ...], *, optional: bool) -> tuple[ChatMessage, ...]:
    """The same messages, without the billing header at the beginning of the system prompt.

    :param optional: whether the system prompt may be missing, if nothing remains of it.
    """
    if not messages or messages[0].role not in ("system", "developer"):
        return messages
    first, *rest = messages
    if (found := _BILLING.match(first.content)) is None:
        return messages
    content = first.content[found.end() :]
    if not content and optional:
        return tuple(rest)
    return (msgspec.structs.replace(first, content=content), *rest)


class HeldPrefixes:
    """The prefixes whose KV one instance probably holds, by hash."""

    def __init__(self) -> None:
        self._held: dict[int, int] = {}  # tokens, as its worker told
        self._expected: dict[int, int] = {}  # tokens of what was sent to it since

    def told(self, changes: Mapping[int, int]) -> None:
        """The worker told which prefixes have changed; 0 tokens for those that are gone."""
        for prefix, tokens in changes.items():
            self._expected.pop(prefix, None)
            if tokens:
                self._held[prefix] = tokens
            else:
                self._held.pop(prefix, None)

    def expect(self, prefixes: Sequence[int], tokens: int) -> None:
        """A prompt of so many tokens goes to the instance; it may be an estimate."""
        if prefixes and prefixes[-1] not in self._held:
            self._expected[prefixes[-1]] = tokens
            if len(self._expected) > _MOST_EXPECTED:
                del self._expected[next(iter(self._expected))]

    def tokens_of(self, prefixes: Sequence[int]) -> int:
        """Tokens of the longest of these prefixes that is held; 0 if none is."""
        for prefix in reversed(prefixes):
            tokens = self._held.get(prefix) or self._expected.get(prefix)
            if tokens:
                return tokens
        return 0
