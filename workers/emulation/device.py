"""How long a device takes: the numbers that emulation and simulation put in the place of a GPU.

Pure: it does not know where they come from (`workers.emulation.profile`), no engine and no clock.
All times are seconds, all sizes tokens or bytes.
"""

from __future__ import annotations

import bisect
from typing import Annotated, Literal

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class BatchTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a step takes by the size of its batch, where that is no line: see `StepTimes.table`."""

    decodes: tuple[Count, ...]  # requests that generate a token each; rising
    seconds: tuple[Positive, ...]  # of each of these, without their KV

    def __post_init__(self) -> None:
        """Refuse what cannot be interpolated."""
        if len(self.decodes) != len(self.seconds) or not self.decodes:
            raise ValueError("decodes and seconds must be of the same length, and not empty")
        if any(b <= a for a, b in zip(self.decodes, self.decodes[1:], strict=False)):
            raise ValueError("decodes must rise")

    def at(self, decodes: int, beyond_s: float) -> float:
        """Interpolate; below the first size as there.

        :param beyond_s: for each request more than in the last.
        """
        sizes, seconds = self.decodes, self.seconds
        if decodes >= sizes[-1]:
            return seconds[-1] + beyond_s * (decodes - sizes[-1])
        index = bisect.bisect_right(sizes, decodes)
        if not index:
            return seconds[0]
        low, high = sizes[index - 1], sizes[index]
        part = (decodes - low) / (high - low)
        return seconds[index - 1] * (1.0 - part) + seconds[index] * part


class StepTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Duration of an engine step as a function of what is in it.

    With a ``table``, as of a device that was measured (`pascal simulate calibrate`), it gives what
    the batch takes; ``prefill_base_s`` then comes on top of it in a step with prefill, and
    ``per_request_s`` counts beyond its end alone. No step takes less than ``base_s``.
    """

    base_s: Positive
    per_request_s: Positive
    per_kv_token_s: Positive
    prefill_base_s: Positive
    prefill_per_token_s: Positive
    prefill_per_token2_s: Positive
    table: BatchTable | None = None

    def seconds(
        self, decodes: int, decode_kv_tokens: int, prefill_tokens: int, prefill_tokens2: int
    ) -> float:
        """One step.

        Below some hundred tokens the matrix products wait for the weights, above for arithmetic,
        so the larger of the two counts, whether the tokens are of prompts or of many requests that
        decode; attention comes on top.

        :param decodes: requests that generate one token each.
        :param decode_kv_tokens: KV tokens that these read.
        :param prefill_tokens: prompt tokens, or lost KV, computed in this step.
        :param prefill_tokens2: sum over those requests of n * (2 * c + n): n new tokens after c.
        """
        if self.table is not None:
            prefill_s = 0.0
            if prefill_tokens:
                prefill_s = self.prefill_base_s + self.prefill_per_token_s * prefill_tokens
            return (
                self.table.at(decodes, self.per_request_s)
                + self.per_kv_token_s * decode_kv_tokens
                + prefill_s
                + self.prefill_per_token2_s * prefill_tokens2
            )
        tokens = prefill_tokens + decodes
        matrices_s = max(self.base_s, self.prefill_base_s + self.prefill_per_token_s * tokens)
        return (
            matrices_s
            + self.per_request_s * decodes
            + self.per_kv_token_s * decode_kv_tokens
            + self.prefill_per_token2_s * prefill_tokens2
        )


class KvShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """KV memory of one instance."""

    layers: Count
    heads: Count
    head_dim: Count
    dtype_bytes: Literal[1, 2, 4]
    tokens: Count
    block_size: Count

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.layers * self.heads * self.head_dim * self.dtype_bytes

    @property
    def blocks(self) -> int:
        """Whole blocks of the memory."""
        return self.tokens // self.block_size


class Links(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload rates, each direction."""

    host_bytes_per_s: Positive
    network_bytes_per_s: Positive


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine around the device."""

    offload_bytes: Positive


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One instance: a model on a device."""

    step: StepTimes
    kv: KvShape
    links: Links
    host: Host
