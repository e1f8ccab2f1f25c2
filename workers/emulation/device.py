"""A device profile: the numbers with which emulation and simulation replace a GPU.

Pure: knows neither engine nor clock, and not where the numbers come from
(`workers.emulation.profile`). All times are in seconds, all sizes in tokens or bytes.
"""

from __future__ import annotations

import bisect
from typing import Annotated, Literal

import msgspec

Positive = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(gt=0)]
NotNegative = Annotated[float, msgspec.Meta(ge=0)]


class BatchTable(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Durations of steps by the size of the batch, for devices on which they form no line."""

    decodes: tuple[Count, ...]  # requests that decode in the step, in rising order
    seconds: tuple[
        Positive, ...
    ]  # duration of the step for each of these numbers, without reading KV

    def __post_init__(self) -> None:
        """Refuse a table that cannot be interpolated.

        :raises ValueError: if the lists differ in length, are empty, or if the sizes do not rise.
        """
        if len(self.decodes) != len(self.seconds) or not self.decodes:
            raise ValueError("decodes and seconds must be of the same length, and not empty")
        if any(b <= a for a, b in zip(self.decodes, self.decodes[1:], strict=False)):
            raise ValueError("decodes must rise")

    def at(self, decodes: int, beyond_s: float) -> float:
        """Interpolate the duration of a step. Batches below the first size take as long as it.

        :param beyond_s: for each request beyond the last size.
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
    """Duration of an engine step as a function of its batch.

    The larger of ``base_s`` and ``prefill_base_s + prefill_per_token_s * tokens`` counts, where
    tokens are all that the step computes, of prompts and of decoding requests. The other times are
    added to it. With a ``table``, as `pascal simulate calibrate` writes it, the table replaces
    ``base_s``. Then the two prefill times are added in steps with prefill, for prompt tokens alone,
    and ``per_request_s`` counts only for requests beyond the end of the table.
    """

    base_s: Positive  # seconds to read the weights: the shortest step
    per_request_s: Positive  # seconds for each request that decodes
    per_kv_token_s: Positive  # seconds for each KV token that decoding requests read
    prefill_base_s: Positive  # constant part of the arithmetic of a step
    prefill_per_token_s: Positive  # seconds for each token that the step computes
    # attention of prompts: seconds for each unit of n(2c + n), for n new tokens after c others
    prefill_per_token2_s: Positive
    table: BatchTable | None = None  # durations by the size of the batch

    def seconds(
        self, decodes: int, decode_kv_tokens: int, prefill_tokens: int, prefill_tokens2: int
    ) -> float:
        """Duration of one step.

        Matrix products wait for the weights below a few hundred tokens, and for arithmetic above.
        So the larger of the two times counts. It does not matter whether the tokens belong to
        prompts or to many decoding requests. Attention is added.

        :param decodes: requests that generate one token each.
        :param decode_kv_tokens: KV tokens that these requests read.
        :param prefill_tokens: tokens of prompts or of lost KV that the step computes.
        :param prefill_tokens2: sum over their requests of n * (2 * c + n) for n new tokens after
            c earlier ones.
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

    layers: Count  # layers with KV
    heads: Count  # key and value heads of a layer, on all devices of the instance
    head_dim: Count  # numbers in the key or value of one head
    dtype_bytes: Literal[1, 2, 4]  # bytes of one number
    tokens: Count  # tokens whose KV fits into the memory
    block_size: Count  # tokens of one KV block

    @property
    def bytes_per_token(self) -> int:
        """Bytes of the keys and values of one token in all layers."""
        return 2 * self.layers * self.heads * self.head_dim * self.dtype_bytes

    @property
    def blocks(self) -> int:
        """Whole blocks of the memory."""
        return self.tokens // self.block_size


class Links(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload rates in each direction."""

    host_bytes_per_s: Positive  # between the device and the memory of its host
    network_bytes_per_s: Positive  # between instances


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine that the device is in."""

    offload_bytes: Positive  # host memory for the KV of preempted requests


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile of one instance: a model on a device."""

    step: StepTimes
    kv: KvShape
    links: Links
    host: Host
