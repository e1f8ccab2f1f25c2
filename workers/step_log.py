"""The step log: a file with one line per engine step, with its batch and its duration.

`pascal simulate calibrate` fits a device profile to such files. The scheduler plugin writes the log
in the process that steps the engine, if a setting names a file. The first line is `Header` as
JSON. Every other line is a JSON array of the fields of `LoggedStep`.

A step begins when the step before it ends, or when work arrives at an idle engine. It ends when
the scheduler has the step's outcome. So its duration includes the engine's own work between two
steps, because requests wait for that too. Where steps overlap, as on a GPU, the duration is the
time from one outcome to the next.

Knows requests and the outcome of `schedule`, but no policy. A step costs a few microseconds,
because lines are written in pieces. A full file is renamed to ``FILE.1`` and replaces the one
before, which bounds the size.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import msgspec

CONFIG_KEY = "step_log"  # in vLLM's additional_config: the file's path
SUFFIX = ".steps"

_MOST_BYTES = 16 * 2**20  # in one file: about 300,000 steps
_PIECE_BYTES = 2**14  # written at once; a killed process loses at most this much


class StepLogError(Exception):
    """A step log cannot be read; the message names the file and the line."""


class Header(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is constant during a run: the model, the device and the KV memory (see `KvShape`)."""

    model: str
    device: str  # such as "cpu"
    layers: int
    heads: int
    head_dim: int
    dtype_bytes: int
    block_size: int
    kv_blocks: int
    version: int = 1


class LoggedStep(NamedTuple):
    """One engine step: its duration on two clocks, and its batch for `StepTimes.seconds`."""

    wall_s: float
    processor_s: float  # of the engine's thread; below ``wall_s`` if others use its core
    decodes: int
    decode_kv_tokens: int
    prefill_tokens: int
    prefill_tokens2: int
    prefills: int  # requests whose prompt or lost KV the step computed


class StepLog:
    """Writes the file. Call `arrived`, `scheduled` and `ended` at the events that they name."""

    def __init__(self, path: Path, header: Header, most_bytes: int = _MOST_BYTES) -> None:
        """Begin a new file.

        :raises OSError: if the file cannot be written.
        """
        self._path = path
        self._most_bytes = most_bytes
        self._header = msgspec.json.encode(header) + b"\n"
        self._pending: deque[tuple[int, int, int, int, int] | None] = deque()  # scheduled steps
        self._began: tuple[float, float] | None = None  # on both clocks; None if the engine is idle
        self._lines = bytearray()
        self._file = self._open()

    @classmethod
    def of(cls, vllm_config: Any, kv_cache_config: Any) -> StepLog | None:
        """The log that an engine's configuration names; None if it names no file.

        :raises ValueError: if the file cannot be written, or the model's KV has no heads.
        """
        additional = vllm_config.additional_config
        path = additional.get(CONFIG_KEY) if isinstance(additional, dict) else None
        if not path:
            return None
        try:
            return cls(Path(path), _header(vllm_config, kv_cache_config))
        except OSError as error:
            raise ValueError(f"step_log: {path}: {error.strerror}") from error

    def arrived(self, *, idle: bool) -> None:
        """A request has arrived; call this before the engine gets it.

        :param idle: whether the engine has no unfinished request. The log cannot know, because
            requests may have been cancelled since the last step.
        """
        if idle:
            self._began = _clocks()

    def scheduled(self, counts: Mapping[str, int], requests: Mapping[str, Any]) -> None:
        """A step was scheduled.

        :param counts: tokens by request, as in ``SchedulerOutput.num_scheduled_tokens``.
        :param requests: vLLM's records by id; computed tokens include those of the step.
        """
        if self._began is None:
            self._began = _clocks()
        decodes = decode_kv = prefill = prefill2 = prefills = 0
        for request_id, count in counts.items():
            request = requests[request_id]
            computed = request.num_computed_tokens
            if count == 1 and not request.is_prefill_chunk:
                decodes += 1
                decode_kv += computed
            else:
                prefills += 1
                prefill += count
                prefill2 += count * (2 * computed - count)
        self._pending.append((decodes, decode_kv, prefill, prefill2, prefills) if counts else None)

    def ended(self, *, more: bool) -> None:
        """The oldest scheduled step has its outcome.

        :param more: whether the engine has more work.
        """
        now, work = _clocks(), self._pending.popleft()
        began, self._began = self._began, now if more else None
        if work is not None and began is not None:
            took = (now[0] - began[0], now[1] - began[1])
            self._lines += b"[%.7f,%.7f,%d,%d,%d,%d,%d]\n" % (*took, *work)
        if len(self._lines) >= _PIECE_BYTES or not more:
            self.flush()

    def flush(self) -> None:
        """Write all pending lines, and begin a new file if this one is full."""
        self._file.write(self._lines)
        self._lines.clear()
        if self._file.tell() >= self._most_bytes:
            self._file.close()
            self._file = self._open()

    def _open(self) -> BinaryIO:
        if self._path.exists():
            self._path.replace(former(self._path))
        file = self._path.open("wb", buffering=0)
        file.write(self._header)
        return file


def _header(vllm_config: Any, kv_cache_config: Any) -> Header:
    groups = kv_cache_config.kv_cache_groups
    specs = [group.kv_cache_spec for group in groups]
    if not all(hasattr(spec, "num_kv_heads") for spec in specs):
        raise ValueError("step_log: the KV memory of this model does not consist of heads")
    return Header(
        model=vllm_config.model_config.model,
        device=vllm_config.device_config.device_type,
        layers=sum(len(group.layer_names) for group in groups),
        heads=specs[0].num_kv_heads * vllm_config.parallel_config.tensor_parallel_size,
        head_dim=specs[0].head_size,
        dtype_bytes=specs[0].dtype.itemsize,
        block_size=vllm_config.cache_config.block_size,
        kv_blocks=kv_cache_config.num_blocks,
    )


def former(path: Path) -> Path:
    """The path to which a full file is renamed."""
    return path.with_name(path.name + ".1")


def read_step_log(path: Path) -> tuple[Header, list[LoggedStep]]:
    """Read a step log. A worker may still be writing it, so an incomplete last line is left out.

    :raises StepLogError: if the file cannot be read; it names the file and the wrong line.
    """
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError as error:
        raise StepLogError(f"{path}: {error.strerror}") from error
    if not lines:
        raise StepLogError(f"{path}: empty; a step log begins with a line about the engine")
    try:
        header = msgspec.json.decode(lines[0], type=Header)
    except msgspec.DecodeError as error:
        raise StepLogError(f"{path}:1: not the first line of a step log: {error}") from error
    if header.version != 1:
        raise StepLogError(f"{path}:1: version {header.version} of the format is unknown")
    return header, list(_steps(path, lines[1:]))


def _steps(path: Path, lines: list[bytes]) -> Iterator[LoggedStep]:
    decoder = msgspec.json.Decoder(LoggedStep)
    for number, line in enumerate(lines, start=2):
        try:
            step = decoder.decode(line)
        except msgspec.DecodeError as error:
            raise StepLogError(f"{path}:{number}: {error}") from error
        if min(step) < 0 or not step.wall_s:
            raise StepLogError(f"{path}:{number}: a number is negative, or the duration is 0")
        yield step


def _clocks() -> tuple[float, float]:
    return time.monotonic(), time.thread_time()
