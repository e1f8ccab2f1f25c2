"""The share of GPUs of each worker. The tests need no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.launchers import gpus

UUIDS = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-1a,MIG-2b,MIG-3c"


@pytest.mark.parametrize(
    ("inherited", "size", "dealt"),
    [
        (None, 1, ["0", "1", "2"]),
        (None, 2, ["0,1", "2,3"]),
        ("4,5,6,7", 1, ["4", "5", "6", "7"]),
        ("3, 1,2 ,0", 2, ["3,1", "2,0"]),
        (UUIDS, 2, ["GPU-8932f937-d72c-4106-c12f-20bd9faed9f6,GPU-1a", "MIG-2b,MIG-3c"]),
    ],
)
def test_each_worker_gets_the_next_of_the_inherited_ones(
    inherited: str | None, size: int, dealt: list[str]
) -> None:
    environment = {} if inherited is None else {gpus.VARIABLE: inherited}
    assert [gpus.of_worker(environment, i, size) for i in range(len(dealt))] == dealt


@pytest.mark.parametrize(
    ("text", "devices"), [("", 0), ("-1", 0), ("NoDevFiles", 0), ("0,-1,1", 1), ("0,1,", 2)]
)
def test_the_list_ends_where_cuda_ends_it(text: str, devices: int) -> None:
    assert gpus.count({gpus.VARIABLE: text}) == devices


def test_a_worker_without_gpus_is_an_error() -> None:
    with pytest.raises(ValueError, match="has 3 GPUs, worker 1 needs 2 more"):
        gpus.of_worker({gpus.VARIABLE: "0,1,2"}, 1, 2)


def fake_nvidia_smi(folder: Path, script: str) -> None:
    path = folder / "nvidia-smi"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("script", "found"),
    [
        ('echo "GPU 0: NVIDIA H100 (UUID: GPU-1)"; echo "GPU 1: NVIDIA H100 (UUID: GPU-2)"', 2),
        ('echo "GPU 0: NVIDIA H100 (UUID: GPU-1)"; echo "  MIG 1g.10gb Device 0: (UUID: M)"', None),
        ("echo cannot reach the driver; exit 9", None),
        ("sleep 60", None),
    ],
)
def test_without_the_variable_the_driver_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, found: int | None
) -> None:
    fake_nvidia_smi(tmp_path, f"[ $1 = -L ] || exit 1; {script}")
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(gpus, "_LIST_S", 0.3 if script.startswith("sleep") else 20.0)
    assert gpus.count({}) == found


def test_without_a_driver_the_number_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(gpus, "_PROC", tmp_path / "gpus")
    assert gpus.count({}) is None
    (tmp_path / "gpus").mkdir()
    assert gpus.count({}) is None
    (tmp_path / "gpus" / "0000:01:00.0").mkdir()
    assert gpus.count({}) == 1
