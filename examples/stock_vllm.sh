#!/bin/sh
# vLLM's own server with the scheduler of pascal-serve, and nothing else of it.
# Arguments: the model, then any flags of vLLM.
set -e
model=${1:-models/tiny-reasoner}
[ $# -gt 0 ] && shift

exec .venv/bin/python -m vllm.entrypoints.openai.api_server --model "$model" \
  --scheduler-cls workers.scheduler.PhaseScheduler \
  --additional-config '{"phase": {"policy": "slack"}}' \
  "$@"
