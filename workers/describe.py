"""What a worker would make of a model, without loading it.

    python -m workers.describe --settings JSON

Prints lines for people; exits with 1 and one line on standard error if the worker could not start.
``pascal check`` runs it.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

import msgspec

from workers.errors import WorkerError
from workers.settings import WorkerSettings

if TYPE_CHECKING:
    from vllm.config import ModelConfig


def layer_kinds(model: ModelConfig) -> tuple[str, ...]:
    """The kinds of layers that a model has; more than one means more than one group of KV."""
    if model.is_hybrid:
        return ("attention", "state")
    if model.is_encoder_decoder:
        return ("attention", "cross attention")
    kinds = getattr(model.hf_text_config, "layer_types", None) or ("attention",)
    return tuple(sorted({str(kind) for kind in kinds}))


def main() -> int:
    """Describe the format and the memory of the model; :return: the exit status."""
    parser = argparse.ArgumentParser(description="What a worker would make of a model.")
    parser.add_argument("--settings", required=True, help="WorkerSettings as JSON")
    settings = msgspec.json.decode(parser.parse_args().settings, type=WorkerSettings)
    from workers.process import check_model, surroundings

    quiet = {"VLLM_LOGGING_LEVEL": "ERROR", "TRANSFORMERS_VERBOSITY": "error"}
    os.environ.update(surroundings(settings) | quiet)
    # Nothing here needs the connectors; they would bind ports.
    plain = msgspec.structs.replace(settings, kv_migration=False, kv_offload_gib=0.0)
    try:
        check_model(settings.model)
        from workers.engine.vllm_config import vllm_config
        from workers.formats.form import Format, describe

        config = vllm_config(plain)
        lines = [*describe(Format.of(plain, config))]
        kinds = layer_kinds(config.model_config)
    except (WorkerError, ValueError, OSError) as error:
        print(f"{type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
        return 1
    if len(kinds) > 1:
        lines.append(
            f"KV: layers of several kinds ({', '.join(kinds)}), so that it is not moved: it is "
            "computed again after a preemption or a move"
        )
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
