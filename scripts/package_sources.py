"""Package sources: translates pip's configuration for uv.

uv does not read pip's configuration: a mirror, a folder of wheels, a proxy or a certificate. This
module deals with options and environments only; it installs nothing and names no host. Standard
library only, Python 3.8 or newer.
"""

from __future__ import annotations

import ast
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

SYSTEM_CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
CPU_LOCK = "cpu"
CUDA_TORCH_LOCK = "cpu-cuda-torch"  # the engine for CPUs, with the CUDA build of torch
_LAYERS = ("global", "install", ":env:")  # pip: each overrides those before it


@dataclass(frozen=True)
class Attempt:
    """One place to look for the torch of one lock: its name, and the options for uv."""

    place: str
    lock: str  # this lock is installed if its torch is there
    options: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class PackageSources:
    """The arguments of uv: its environment, folders of wheels, and indexes held in reserve."""

    env: dict[str, str]
    find_links: tuple[str, ...] = ()
    extra_indexes: tuple[str, ...] = ()

    @property
    def options(self) -> list[str]:
        """The folders of wheels as options of `uv pip`."""
        return [part for link in self.find_links for part in ("--find-links", link)]

    def options_without_cpu_torch(self) -> list[str]:
        """The same without the folders that hold a CPU build of torch.

        For a resolver `2.13.0+cpu` satisfies `==2.13.0`, and is newer.
        """
        kept = [link for link in self.find_links if not _has_cpu_torch(link)]
        return [part for link in kept for part in ("--find-links", link)]


def _has_cpu_torch(link: str) -> bool:
    parts = urlsplit(link)
    if parts.scheme not in ("", "file"):
        return False
    folder = Path(unquote(parts.path)) if parts.scheme else Path(link)
    return any(folder.glob("torch-*+cpu-*.whl"))


def parse_pip_config(listing: str) -> dict[str, str]:
    """The options in the output of ``pip config list``, each with the value `pip install` uses."""
    layers: dict[str, dict[str, str]] = {name: {} for name in _LAYERS}
    for line in listing.splitlines():
        name, _, literal = line.partition("=")
        section, _, option = name.strip().partition(".")
        if section not in layers:
            continue
        try:
            value = ast.literal_eval(literal.strip())
        except (SyntaxError, ValueError):
            continue  # a warning of pip, not an option
        layers[section][option] = str(value)
    merged: dict[str, str] = {}
    for name in _LAYERS:
        merged.update(layers[name])
    return merged


def environment_options(environ: Mapping[str, str]) -> dict[str, str]:
    """The options that pip reads from ``PIP_*`` variables."""
    prefix = "PIP_"
    return {
        name[len(prefix) :].lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith(prefix) and value
    }


def uv_environment(pip: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` plus the configuration of `pip`. Variables that are set for uv stay unchanged."""
    added: dict[str, str] = {}

    def add(variable: str, value: str | None, *unless: str) -> None:
        if value and not any(environ.get(name) for name in (variable, *unless)):
            added[variable] = value

    add("UV_DEFAULT_INDEX", pip.get("index-url"), "UV_INDEX_URL")
    if pip.get("no-index", "").lower() in ("1", "true", "yes", "on"):
        add("UV_NO_INDEX", "1")
    add("UV_INSECURE_HOST", " ".join(pip.get("trusted-host", "").split()))
    add("UV_HTTP_TIMEOUT", pip.get("timeout") or pip.get("default-timeout"))
    add("ALL_PROXY", pip.get("proxy"), "HTTPS_PROXY", "https_proxy", "all_proxy")
    add("SSL_CERT_FILE", pip.get("cert"))
    if Path(SYSTEM_CERTIFICATES).exists():
        # Like pip: trust the authorities that the machine trusts.
        add("UV_SYSTEM_CERTS", "1", "UV_NATIVE_TLS", "SSL_CERT_FILE")
    return {**environ, **added}


def read_pip_config(pythons: Sequence[str], environ: Mapping[str, str]) -> PackageSources:
    """The configuration of the first of `pythons` that has pip; without one, the environment's."""
    options = environment_options(environ)
    for python in pythons:
        try:
            answer = subprocess.run(
                [python, "-m", "pip", "config", "list"],
                capture_output=True,
                text=True,
                check=True,
                timeout=120,
            )
        except (OSError, subprocess.SubprocessError):
            continue
        options = {**parse_pip_config(answer.stdout), **options}
        break
    return PackageSources(
        env=uv_environment(options, environ),
        find_links=tuple(options.get("find-links", "").split()),
        extra_indexes=tuple(options.get("extra-index-url", "").split()),
    )


def torch_attempts(sources: PackageSources) -> list[Attempt]:
    """The places to look for torch on a machine without a GPU, in order.

    The CPU build comes first, wherever it is. The public index has only the CUDA build of the same
    version. It runs on the CPU, too, and is larger.
    """
    cpu, cuda = sources.options, sources.options_without_cpu_torch()
    return [
        *_index_attempts(CPU_LOCK, sources, cpu),
        Attempt("PyTorch's CPU index", CPU_LOCK, [*cpu, "--torch-backend", "cpu"]),
        *_index_attempts(CUDA_TORCH_LOCK, sources, cuda),
    ]


def _index_attempts(lock: str, sources: PackageSources, options: list[str]) -> list[Attempt]:
    """pip's index and folders, then its extra indexes.

    uv stops at the first index that has a package, so an extra index with only some of the files
    would hide the rest. So they come second, and are searched as pip does it: all together, best
    match first. That is safe because every version is pinned.
    """
    place = "pip's sources" if sources.find_links else "the package index"
    attempts = [Attempt(place, lock, options)]
    if sources.extra_indexes:
        env = {
            "UV_INDEX": " ".join(sources.extra_indexes),
            "UV_INDEX_STRATEGY": "unsafe-best-match",
        }
        attempts.append(Attempt("pip's extra indexes", lock, options, env))
    return attempts
