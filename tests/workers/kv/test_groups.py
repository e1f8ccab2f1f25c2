"""A model whose layers keep different KV: its KV stays where it is."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from structlog.testing import capture_logs
from vllm.v1.kv_cache_interface import (
    FullAttentionSpec,
    KVCacheConfig,
    KVCacheGroupSpec,
    SlidingWindowSpec,
)
from vllm.v1.structured_output import StructuredOutputManager

from tests.workers.support.harness import MODEL
from workers.engine.vllm_config import vllm_config
from workers.kv import migration, offload
from workers.kv.connectors import combined, part_of
from workers.kv.offload import ResumeConnector
from workers.scheduler.plugin import PhaseScheduler
from workers.settings import WorkerSettings

BLOCK = 32
BLOCKS = 40
SHAPE: dict[str, Any] = {
    "block_size": BLOCK,
    "num_kv_heads": 1,
    "head_size": 8,
    "dtype": torch.float32,
}
FULL = FullAttentionSpec(**SHAPE)
WINDOW = SlidingWindowSpec(**SHAPE, sliding_window=64)


@pytest.mark.skipif(not migration.available(), reason="NIXL is missing: `make setup` installs it")
@pytest.mark.parametrize("specs", [(FULL,), (FULL, WINDOW)], ids=["alike", "different"])
def test_kv_moves_only_where_all_layers_keep_the_same(specs: tuple[Any, ...]) -> None:
    config = vllm_config(
        WorkerSettings(
            instance_id="a",
            listen="unix:/x",
            model=str(MODEL),
            served_model_name="tiny",
            max_model_len=512,
            block_size=BLOCK,
        )
    )
    config.kv_transfer_config = combined(
        [migration.kv_transfer_config("127.0.0.1", 5.0), offload.kv_transfer_config(2**20, "auto")]
    )
    config.cache_config.num_gpu_blocks = BLOCKS
    groups = [KVCacheGroupSpec([str(number)], spec) for number, spec in enumerate(specs)]
    with capture_logs() as said:
        scheduler = PhaseScheduler(
            vllm_config=config,
            kv_cache_config=KVCacheConfig(BLOCKS, [], groups),
            structured_output_manager=StructuredOutputManager(config),
            block_size=BLOCK,
            hash_block_size=BLOCK,
            log_stats=False,
        )
    alike = len(specs) == 1
    assert (scheduler.migration is not None) == alike
    connector = part_of(scheduler.connector, ResumeConnector)
    assert connector is not None
    assert connector.costs.resume == ("auto" if alike else "recompute")
    assert [line["event"] for line in said] == ([] if alike else ["kv_stays"])
