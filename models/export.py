"""Writes a model as a Qwen3 checkpoint that vLLM loads: weights in bfloat16, config, defaults.

    python -m models.export --work FOLDER --out models/tiny-reasoner

writes the model of a training folder to its place in the project, without the checkpoint.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.architecture import Reasoner, Shape

FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "model.safetensors",
)
END_OF_TEXT_ID, IM_END_ID = 0, 2
CONTEXT = 4096


def _config(s: Shape) -> dict[str, object]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "hidden_size": s.hidden,
        "intermediate_size": s.mlp,
        "num_hidden_layers": s.layers,
        "num_attention_heads": s.heads,
        "num_key_value_heads": s.kv_heads,
        "head_dim": s.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT,
        "rms_norm_eps": s.norm_eps,
        "rope_theta": s.rope_theta,
        "tie_word_embeddings": True,
        "vocab_size": s.vocab,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "bos_token_id": END_OF_TEXT_ID,
        "eos_token_id": IM_END_ID,
        "pad_token_id": END_OF_TEXT_ID,
        "torch_dtype": "bfloat16",
    }


def _generation_config() -> dict[str, object]:
    """Sampling defaults: nearly greedy, because one wrong digit spoils every digit after it."""
    return {
        "eos_token_id": [IM_END_ID, END_OF_TEXT_ID],
        "pad_token_id": END_OF_TEXT_ID,
        "do_sample": True,
        "temperature": 0.3,
        "top_p": 0.9,
        "top_k": 20,
    }


def export(model: Reasoner, folder: Path) -> None:
    """Write weights and configuration into `folder`, each file in one move."""
    tensors = {
        f"model.{n}": p.detach().to(torch.bfloat16).contiguous()
        for n, p in model.named_parameters()
    }
    save_file(tensors, folder / "model.new", metadata={"format": "pt"})
    (folder / "model.new").replace(folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(_config(model.s), indent=1) + "\n")
    (folder / "generation_config.json").write_text(
        json.dumps(_generation_config(), indent=1) + "\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="training folder")
    parser.add_argument("--out", type=Path, required=True, help="folder for the finished model")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        fresh = args.out / f"{name}.new"
        shutil.copyfile(args.work / name, fresh)
        fresh.replace(args.out / name)
        print(f"{args.out / name}: {(args.out / name).stat().st_size} bytes")


if __name__ == "__main__":
    main()
