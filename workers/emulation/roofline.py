"""Step times and KV memory from the shape of a model and a device's data sheet: a roofline.

A step waits for memory or for arithmetic, whichever takes longer; efficiencies say how much of a
data sheet's rates kernels reach. What comes out is computed, not measured:
`docs/reference/profiles.md` says how far off it was where there are measurements. Left out: the
engine's own work between steps, and everything about a model but its matrices and its attention.
With tensor parallelism weights, arithmetic and KV are split evenly, and every layer adds up its
result twice among the devices.

Pure. Times are seconds, sizes bytes unless they say tokens, rates per second and device.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from workers.emulation.device import (
    Count,
    DeviceProfile,
    Host,
    KvShape,
    Links,
    NotNegative,
    Positive,
    StepTimes,
)

_LOGIT_PASSES = 4  # over the logits of a token, in float32: softmax and sampling


class RooflineError(ValueError):
    """Keys of a roofline do not go together; the message names one."""


class ModelShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decoder with grouped attention and gated MLPs; the names of a ``config.json``, shorter."""

    layers: Count
    hidden: Count
    heads: Count  # of queries
    kv_heads: Count
    head_dim: Count
    intermediate: Count  # of the MLP, or of one expert
    vocabulary: Count
    tied_embeddings: bool = False  # the input's and the output's are one matrix
    experts: Annotated[int, msgspec.Meta(ge=0)] = 0  # in every layer; 0: one MLP for all tokens
    active_experts: Annotated[int, msgspec.Meta(ge=0)] = 0  # for one token
    weight_bytes: Literal[1, 2, 4] = 2  # of a number
    kv_bytes: Literal[1, 2, 4] = 2

    @property
    def attention_parameters(self) -> int:
        """Of all layers."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * self.hidden * (2 * queries + 2 * keys)

    @property
    def mlp_parameters(self) -> int:
        """Of one MLP, or of one expert, in all layers."""
        return self.layers * 3 * self.hidden * self.intermediate

    @property
    def layer_parameters(self) -> int:
        """Of all layers."""
        if not self.experts:
            return self.attention_parameters + self.mlp_parameters
        router = self.layers * self.hidden * self.experts
        return self.attention_parameters + router + self.experts * self.mlp_parameters

    @property
    def active_parameters(self) -> int:
        """Of all layers, those that one token is multiplied with."""
        if not self.experts:
            return self.layer_parameters
        idle = self.experts - self.active_experts
        return self.layer_parameters - idle * self.mlp_parameters

    @property
    def output_parameters(self) -> int:
        """Of the matrix that makes logits."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All; norms and biases are too few to count."""
        return self.layer_parameters + self.output_parameters * (1 if self.tied_embeddings else 2)

    @property
    def activation_bytes(self) -> int:
        """That the operations between the matrices read and write for one token."""
        wide = self.intermediate * max(1, self.active_experts)
        return self.layers * (12 * self.hidden + 6 * wide) * self.weight_bytes


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device: its data sheet, and how much of it kernels reach."""

    flops: Positive  # dense, in the weights' type
    memory_bytes_per_s: Positive
    memory_bytes: Positive  # as a process sees it
    host_bytes_per_s: Positive  # payload between it and the host's memory, each direction
    network_bytes_per_s: Positive  # its share of the network between instances, each direction
    memory_utilization: Positive = 0.9  # vLLM's gpu_memory_utilization
    reserved_bytes: NotNegative = 2.7e9  # of it: activations and captured graphs
    # From the kernels that the profile h100-qwen32b was fitted to.
    memory_efficiency: Positive = 0.85
    flops_efficiency: Positive = 0.75  # of matrix products; includes the operations between them
    attention_efficiency: Positive = 0.55  # of prompts' attention
    layer_overhead_s: NotNegative = (
        20e-6  # kernels of a layer follow each other; however few the tokens
    )


class Parallel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tensor parallelism; the defaults are NVLink's between H100s, as NCCL reaches it."""

    devices: Count = 1
    all_reduce_bytes_per_s: Positive = 360e9  # of one device's traffic, each direction
    all_reduce_latency_s: Positive = 12e-6


class Roofline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A profile that is computed; the file's tables."""

    model: ModelShape
    device: Device
    host: Host
    parallel: Parallel = Parallel()
    block_size: Count = 16  # tokens of a KV block

    def profile(self) -> DeviceProfile:
        """Of one instance.

        :raises RooflineError: if the model does not fit, or cannot be split.
        """
        self._check()
        device, count = self.device, self.parallel.devices
        return DeviceProfile(
            step=self._step_times(),
            kv=self._kv(),
            links=Links(
                host_bytes_per_s=device.host_bytes_per_s * count,
                network_bytes_per_s=device.network_bytes_per_s * count,
            ),
            host=self.host,
        )

    def _check(self) -> None:
        model, device, count = self.model, self.device, self.parallel.devices
        if bool(model.experts) != bool(model.active_experts):
            raise RooflineError("model.experts and model.active_experts go together")
        if model.active_experts > model.experts:
            raise RooflineError(
                f"model.active_experts must be at most {model.experts}, not {model.active_experts}"
            )
        if model.heads % model.kv_heads:
            raise RooflineError(
                f"model.heads ({model.heads}) is no multiple of model.kv_heads ({model.kv_heads})"
            )
        if model.heads % count:
            raise RooflineError(f"model.heads ({model.heads}) cannot be split over {count} devices")
        if model.kv_heads % count and count % model.kv_heads:
            raise RooflineError(
                f"model.kv_heads ({model.kv_heads}) cannot be split over {count} devices"
            )
        for name in (
            "memory_utilization",
            "memory_efficiency",
            "flops_efficiency",
            "attention_efficiency",
        ):
            if getattr(device, name) > 1:
                raise RooflineError(
                    f"device.{name} is a share: at most 1, not {getattr(device, name)}"
                )

    def _step_times(self) -> StepTimes:
        model, device, count = self.model, self.device, self.parallel.devices
        bytes_per_s = device.memory_bytes_per_s * device.memory_efficiency * count
        flops = device.flops * count
        fixed_s = model.layers * device.layer_overhead_s
        exchange_s = 0.0
        if count > 1:
            fixed_s += 2 * model.layers * self.parallel.all_reduce_latency_s
            # A ring passes every number on twice, but for the share that is a device's own.
            passed = 2 * (count - 1) / count * model.hidden * model.weight_bytes
            exchange_s = 2 * model.layers * passed / self.parallel.all_reduce_bytes_per_s
        # All experts are read: with 128 of which a token takes 8, that is so from 64 tokens on.
        read = (model.layer_parameters + model.output_parameters) * model.weight_bytes
        logits = _LOGIT_PASSES * 4 * model.vocabulary
        return StepTimes(
            base_s=fixed_s + read / bytes_per_s,
            per_request_s=(model.activation_bytes + logits) / bytes_per_s + exchange_s,
            per_kv_token_s=self._kv_bytes_per_token() / bytes_per_s,
            prefill_base_s=max(fixed_s, 1e-9),
            prefill_per_token_s=2 * model.active_parameters / (flops * device.flops_efficiency)
            + exchange_s,
            # Scores and values, two operations each; half of n * (2c + n) is what n tokens look at.
            prefill_per_token2_s=2
            * model.layers
            * model.heads
            * model.head_dim
            / (flops * device.attention_efficiency),
        )

    def _kv_heads(self) -> int:
        """On all devices: where there are more devices than heads, each has one."""
        return max(self.model.kv_heads, self.parallel.devices)

    def _kv_bytes_per_token(self) -> int:
        model = self.model
        return 2 * model.layers * self._kv_heads() * model.head_dim * model.kv_bytes

    def _kv(self) -> KvShape:
        model, device, count = self.model, self.device, self.parallel.devices
        usable = device.memory_bytes * device.memory_utilization - device.reserved_bytes
        left = usable * count - model.parameters * model.weight_bytes
        tokens = int(left / self._kv_bytes_per_token())
        if tokens < 2 * self.block_size:
            weights_gb = model.parameters * model.weight_bytes / 1e9
            raise RooflineError(
                f"device.memory_bytes: {weights_gb:.0f} GB of weights leave no memory for KV on "
                f"{count} device{'s' if count > 1 else ''} of {device.memory_bytes / 1e9:.0f} GB"
            )
        return KvShape(
            layers=model.layers,
            heads=self._kv_heads(),
            head_dim=model.head_dim,
            dtype_bytes=model.kv_bytes,
            tokens=tokens,
            block_size=self.block_size,
        )
