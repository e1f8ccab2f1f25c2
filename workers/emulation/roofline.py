"""A roofline: computes step times and KV memory from a model's shape and a device's data sheet.

A step waits for memory or for arithmetic, whichever takes longer. Efficiencies say which share of a
data sheet's rates kernels reach. The results are computed, not measured:
`docs/reference/profiles.md` compares them with measurements. The model covers matrices and
attention. It leaves out the rest of a model and the engine's own work between steps. Tensor
parallelism splits weights, arithmetic and KV evenly, and every layer has two all-reduces.

Pure. Times are in seconds, sizes in bytes if they do not say tokens, rates per second and device.
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

_LOGIT_PASSES = 4  # times that softmax and sampling read or write a token's logits, in float32


class RooflineError(ValueError):
    """Keys of a roofline contradict each other; the message names one of them."""


class ModelShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A decoder with grouped attention and gated MLPs; the keys of a ``config.json``, shortened."""

    layers: Count  # number of decoder layers
    hidden: Count  # numbers in the hidden state of a token
    heads: Count  # query heads of a layer
    kv_heads: Count  # key and value heads of a layer
    head_dim: Count  # numbers in one head
    intermediate: Count  # width of the MLP, or of one expert
    vocabulary: Count  # tokens in the vocabulary
    tied_embeddings: bool = False  # whether one matrix serves for both input and output
    # experts in every layer; 0 for a model with one MLP for all tokens
    experts: Annotated[int, msgspec.Meta(ge=0)] = 0
    active_experts: Annotated[int, msgspec.Meta(ge=0)] = 0  # experts that compute one token
    weight_bytes: Literal[1, 2, 4] = 2  # bytes of one weight
    kv_bytes: Literal[1, 2, 4] = 2  # bytes of one number in a key or value

    @property
    def attention_parameters(self) -> int:
        """Parameters of the attention in all layers."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return self.layers * self.hidden * (2 * queries + 2 * keys)

    @property
    def mlp_parameters(self) -> int:
        """Parameters of one MLP, or of one expert, in all layers."""
        return self.layers * 3 * self.hidden * self.intermediate

    @property
    def layer_parameters(self) -> int:
        """Parameters of all layers, with all experts."""
        if not self.experts:
            return self.attention_parameters + self.mlp_parameters
        router = self.layers * self.hidden * self.experts
        return self.attention_parameters + router + self.experts * self.mlp_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters of all layers that one token is multiplied with."""
        if not self.experts:
            return self.layer_parameters
        idle = self.experts - self.active_experts
        return self.layer_parameters - idle * self.mlp_parameters

    @property
    def output_parameters(self) -> int:
        """Parameters of the matrix that produces logits."""
        return self.hidden * self.vocabulary

    @property
    def parameters(self) -> int:
        """All parameters, except norms and biases, which are few."""
        return self.layer_parameters + self.output_parameters * (1 if self.tied_embeddings else 2)

    @property
    def activation_bytes(self) -> int:
        """Bytes that the operations between the matrices read and write for one token."""
        wide = self.intermediate * max(1, self.active_experts)
        return self.layers * (12 * self.hidden + 6 * wide) * self.weight_bytes


class Device(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One device: the rates of its data sheet, and the share of them that kernels reach."""

    flops: Positive  # dense operations per second in the type of the weights
    memory_bytes_per_s: Positive  # rate of the device memory
    memory_bytes: Positive  # device memory that a process sees
    host_bytes_per_s: Positive  # payload between device and host memory, in each direction
    # share of this device in the network between instances, in each direction.
    network_bytes_per_s: Positive
    memory_utilization: Positive = 0.9  # share of the memory, as vLLM's ``gpu_memory_utilization``
    reserved_bytes: NotNegative = 2.7e9  # part of that share for activations and captured graphs
    # The efficiencies and the overhead come from the kernels that h100-qwen32b was fitted to.

    # share of ``memory_bytes_per_s`` that a step reaches.
    memory_efficiency: Positive = 0.85
    # share of ``flops`` that matrix products reach, with the operations between them.
    flops_efficiency: Positive = 0.75
    # share of ``flops`` that the attention of prompts reaches.
    attention_efficiency: Positive = 0.55
    # time that the kernels of a layer take at least, however few the tokens.
    layer_overhead_s: NotNegative = 20e-6


class Parallel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Tensor parallelism. The default rates are what NCCL reaches on NVLink between H100s."""

    devices: Count = 1  # devices of one instance
    all_reduce_bytes_per_s: Positive = 360e9  # traffic of one device, in each direction
    all_reduce_latency_s: Positive = 12e-6  # time of an all-reduce without its traffic


class Roofline(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A computed profile; each field is a table of its file."""

    model: ModelShape
    device: Device
    host: Host
    parallel: Parallel = Parallel()
    block_size: Count = 16  # tokens of one KV block

    def profile(self) -> DeviceProfile:
        """Compute the profile of one instance.

        :raises RooflineError: if the model does not fit, or if it cannot be split over the devices.
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
                f"model.heads ({model.heads}) is not a multiple of "
                f"model.kv_heads ({model.kv_heads})"
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
            # In a ring each device sends 2 * (count - 1) / count times the size of the result.
            passed = 2 * (count - 1) / count * model.hidden * model.weight_bytes
            exchange_s = 2 * model.layers * passed / self.parallel.all_reduce_bytes_per_s
        # Assume that a step reads all experts: with 8 of 128 per token, 64 tokens read nearly all.
        read = (model.layer_parameters + model.output_parameters) * model.weight_bytes
        logits = _LOGIT_PASSES * 4 * model.vocabulary
        return StepTimes(
            base_s=fixed_s + read / bytes_per_s,
            per_request_s=(model.activation_bytes + logits) / bytes_per_s + exchange_s,
            per_kv_token_s=self._kv_bytes_per_token() / bytes_per_s,
            prefill_base_s=max(fixed_s, 1e-9),
            prefill_per_token_s=2 * model.active_parameters / (flops * device.flops_efficiency)
            + exchange_s,
            # Scores and values take two operations each for a pair of tokens. n tokens after c
            # others make n * (2c + n) / 2 pairs.
            prefill_per_token2_s=2
            * model.layers
            * model.heads
            * model.head_dim
            / (flops * device.attention_efficiency),
        )

    def _kv_heads(self) -> int:
        """KV heads on all devices. A device has at least one, so some may be copies."""
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
