"""pip's configuration, read and said again for uv."""

from __future__ import annotations

from pathlib import Path

import package_sources
import pytest
from package_sources import (
    PackageSources,
    environment_options,
    parse_pip_config,
    torch_attempts,
    uv_environment,
)

LISTING = """\
:env:.find-links='/env/wheels'
global.cert='/etc/ca.pem'
global.extra-index-url='file:///one/simple\\nfile:///two/simple'
global.find-links='/global/wheels'
global.index-url='https://mirror.test/simple'
install.index-url='https://install.test/simple'
list.format='columns'
WARNING: a line that is no option
"""


def test_environment_beats_section_beats_global() -> None:
    options = parse_pip_config(LISTING)
    assert options["find-links"] == "/env/wheels"
    assert options["index-url"] == "https://install.test/simple"
    assert options["cert"] == "/etc/ca.pem"
    assert "format" not in options


def test_variables_name_the_same_options() -> None:
    environ = {"PIP_FIND_LINKS": "/a /b", "PIP_NO_INDEX": "", "HOME": "/root"}
    assert environment_options(environ) == {"find-links": "/a /b"}


@pytest.fixture
def no_system_certificates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(package_sources, "SYSTEM_CERTIFICATES", str(tmp_path / "absent"))


@pytest.mark.usefixtures("no_system_certificates")
def test_every_option_has_its_variable() -> None:
    pip = {
        "index-url": "https://mirror.test/simple",
        "no-index": "true",
        "trusted-host": "one.test\ntwo.test",
        "timeout": "180",
        "proxy": "http://proxy.test:3128",
        "cert": "/etc/ca.pem",
    }
    assert uv_environment(pip, {"HOME": "/root"}) == {
        "HOME": "/root",
        "UV_DEFAULT_INDEX": "https://mirror.test/simple",
        "UV_NO_INDEX": "1",
        "UV_INSECURE_HOST": "one.test two.test",
        "UV_HTTP_TIMEOUT": "180",
        "ALL_PROXY": "http://proxy.test:3128",
        "SSL_CERT_FILE": "/etc/ca.pem",
    }


@pytest.mark.usefixtures("no_system_certificates")
def test_what_is_set_for_uv_stays() -> None:
    environ = {"UV_INDEX_URL": "https://uv.test/simple", "HTTPS_PROXY": "http://uv.test"}
    pip = {"index-url": "https://mirror.test/simple", "proxy": "http://proxy.test", "no-index": "0"}
    assert uv_environment(pip, environ) == environ


def test_system_certificates_are_trusted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    bundle = tmp_path / "ca.crt"
    bundle.touch()
    monkeypatch.setattr(package_sources, "SYSTEM_CERTIFICATES", str(bundle))
    assert uv_environment({}, {}) == {"UV_SYSTEM_CERTS": "1"}
    chosen = {"SSL_CERT_FILE": "/etc/ca.pem"}
    assert uv_environment({}, chosen) == chosen


def test_the_cpu_build_of_torch_is_sought_nearest_first_and_the_cuda_build_last() -> None:
    def order(sources: PackageSources) -> list[tuple[str, str]]:
        return [(attempt.lock, attempt.place) for attempt in torch_attempts(sources)]

    assert order(PackageSources(env={})) == [
        ("cpu", "the package index"),
        ("cpu", "PyTorch's CPU index"),
        ("cpu-cuda-torch", "the package index"),
    ]
    sources = PackageSources(
        env={}, find_links=("/wheels",), extra_indexes=("file:///one", "file:///two")
    )
    assert order(sources) == [
        ("cpu", "pip's sources"),
        ("cpu", "pip's extra indexes"),
        ("cpu", "PyTorch's CPU index"),
        ("cpu-cuda-torch", "pip's sources"),
        ("cpu-cuda-torch", "pip's extra indexes"),
    ]
    attempts = torch_attempts(sources)
    assert all(attempt.options[:2] == ["--find-links", "/wheels"] for attempt in attempts)
    assert attempts[2].options[2:] == ["--torch-backend", "cpu"]
    for number, attempt in enumerate(attempts):
        indexes = "file:///one file:///two" if number in (1, 4) else None
        assert attempt.env.get("UV_INDEX") == indexes


@pytest.mark.parametrize("as_url", [False, True])
def test_a_gpu_is_not_given_the_cpu_build(tmp_path: Path, as_url: bool) -> None:
    cpu, other = tmp_path / "cpu wheels", tmp_path / "other"
    for folder in (cpu, other):
        folder.mkdir()
    (cpu / "torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    (other / "torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl").touch()
    links = tuple(path.as_uri() if as_url else str(path) for path in (cpu, other))
    sources = PackageSources(env={}, find_links=links)
    assert sources.options == ["--find-links", links[0], "--find-links", links[1]]
    assert sources.options_without_cpu_torch() == ["--find-links", links[1]]
    # Nor is the CPU build taken where the CUDA build is sought: a resolver holds it for newer.
    assert torch_attempts(sources)[-1].options == ["--find-links", links[1]]


def test_pip_is_asked_where_there_is_one(tmp_path: Path) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho \"global.find-links='/a /b'\"\n")
    python.chmod(0o755)
    absent = str(tmp_path / "absent")
    assert package_sources.read_pip_config([absent, str(python)], {}).find_links == ("/a", "/b")
    from_variable = package_sources.read_pip_config([absent], {"PIP_FIND_LINKS": "/c"})
    assert from_variable.find_links == ("/c",)
