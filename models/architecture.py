"""The Qwen3 architecture in plain torch, for training only; vLLM has its own for serving.

Weights are kept in float32 and used in bfloat16. The parameter names are those of a Qwen3
checkpoint without the leading "model.".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

BF16 = torch.bfloat16


@dataclass(frozen=True, slots=True)
class Shape:
    """The sizes of a model."""

    vocab: int = 1280
    hidden: int = 256
    layers: int = 4
    mlp: int = 640
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6


class Norm(nn.Module):
    """Root mean square norm."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, (x.shape[-1],), self.weight.to(BF16), self.eps)


class Linear(nn.Module):
    """A matrix without bias; `gain` scales its random start."""

    def __init__(self, inputs: int, outputs: int, gain: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) * gain * inputs**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(BF16))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat((-second, first), -1) * sin


class Attention(nn.Module):
    """Grouped-query attention with normed queries and keys."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.q_proj = Linear(s.hidden, s.heads * s.head_dim)
        self.k_proj = Linear(s.hidden, s.kv_heads * s.head_dim)
        self.v_proj = Linear(s.hidden, s.kv_heads * s.head_dim)
        self.o_proj = Linear(s.heads * s.head_dim, s.hidden, gain=0.5 * s.layers**-0.5)
        self.q_norm = Norm(s.head_dim, s.norm_eps)
        self.k_norm = Norm(s.head_dim, s.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        s, (b, t, _) = self.s, x.shape
        q = self.q_norm(self.q_proj(x).view(b, t, s.heads, s.head_dim)).transpose(1, 2)
        k = self.k_norm(self.k_proj(x).view(b, t, s.kv_heads, s.head_dim)).transpose(1, 2)
        v = self.v_proj(x).view(b, t, s.kv_heads, s.head_dim).transpose(1, 2)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        group = s.heads // s.kv_heads
        k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, is_causal=mask is None)
        result: Tensor = self.o_proj(out.transpose(1, 2).reshape(b, t, s.heads * s.head_dim))
        return result


class Mlp(nn.Module):
    """Gated feed-forward."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.gate_proj = Linear(s.hidden, s.mlp)
        self.up_proj = Linear(s.hidden, s.mlp)
        self.down_proj = Linear(s.mlp, s.hidden, gain=0.5 * s.layers**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return result


class Layer(nn.Module):
    """Attention and feed-forward, each behind a norm."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.self_attn = Attention(s)
        self.mlp = Mlp(s)
        self.input_layernorm = Norm(s.hidden, s.norm_eps)
        self.post_attention_layernorm = Norm(s.hidden, s.norm_eps)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, mask: Tensor | None) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, mask)
        mlp: Tensor = self.mlp(self.post_attention_layernorm(x))
        return x + mlp


class Reasoner(nn.Module):
    """The whole model; its forward pass is the training loss."""

    def __init__(self, s: Shape) -> None:
        super().__init__()
        self.s = s
        self.embed_tokens = nn.Embedding(s.vocab, s.hidden)
        nn.init.normal_(self.embed_tokens.weight, std=0.05)
        self.layers = nn.ModuleList([Layer(s) for _ in range(s.layers)])
        self.norm = Norm(s.hidden, s.norm_eps)

    def forward(
        self,
        ids: Tensor,
        cos: Tensor,
        sin: Tensor,
        mask: Tensor | None,
        places: Tensor,
        targets: Tensor,
    ) -> Tensor:
        """Summed cross-entropy at the flat positions `places`, whose next tokens are `targets`.

        `ids` is (batch, length); `cos` and `sin` are (batch, 1, length, head_dim). `mask` adds to
        the attention scores, (batch, 1, length, length); without it attention is causal.
        """
        x = self.embed_tokens(ids).to(BF16)
        for layer in self.layers:
            x = layer(x, cos, sin, mask)
        x = self.norm(x.reshape(-1, self.s.hidden)[places])
        logits = F.linear(x, self.embed_tokens.weight.to(BF16)).float()
        return F.cross_entropy(logits, targets, reduction="sum")


def rotary(s: Shape, length: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary positions, each (length, head_dim), in bfloat16."""
    inverse = 1 / (s.rope_theta ** (torch.arange(0, s.head_dim, 2).float() / s.head_dim))
    angles = torch.outer(torch.arange(length).float(), inverse)
    angles = torch.cat((angles, angles), -1)
    return angles.cos().to(BF16), angles.sin().to(BF16)
