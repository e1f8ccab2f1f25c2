"""Files of results: problems are reported before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.reporting.errors import BenchmarkError
from bench.reporting.outputs import prepare_folder, prepare_json, write_json


def test_results_of_other_parts_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    assert prepare_json(path, keep=True) == {}
    assert prepare_json(path, keep=True) == {}  # an empty file
    write_json(path, {"a": 1})
    assert prepare_json(path, keep=True) == {"a": 1}
    assert prepare_json(path, keep=False) == {}
    assert prepare_json(None, keep=True) == {}
    write_json(None, {"a": 1})


@pytest.mark.parametrize("text", ["[1]", "null", "no JSON"])
def test_a_file_without_results_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "figures.json"
    path.write_text(text)
    with pytest.raises(BenchmarkError, match="figures"):
        prepare_json(path, keep=True)
    assert path.read_text() == text
    assert prepare_json(path, keep=False) == {}


def test_paths_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "no" / "figures.json", tmp_path):
        with pytest.raises(BenchmarkError, match=f"--json {path}"):
            prepare_json(path, keep=False)
    file = tmp_path / "file"
    file.touch()
    for folder in (file, file / "sub"):
        with pytest.raises(BenchmarkError, match=f"--plots {folder}"):
            prepare_folder(folder)
    prepare_folder(tmp_path / "new" / "nested")
    assert (tmp_path / "new" / "nested").is_dir()
    prepare_folder(None)
