"""Whether NIXL, by which KV moves between engines, can be used here.

It is an optional part. vLLM's connector takes only an `ImportError` for "not there" and dies of
everything else, so this module must be imported before it: what cannot be used is hidden from it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from typing import Any

_API = "nixl._api"
# What vLLM's connector and ours call.
_AGENT = (
    "add_remote_agent",
    "check_xfer_state",
    "deregister_memory",
    "get_agent_metadata",
    "get_new_notifs",
    "get_reg_descs",
    "get_xfer_descs",
    "get_xfer_telemetry",
    "make_connection",
    "make_prepped_xfer",
    "prep_xfer_dlist",
    "register_memory",
    "release_dlist_handle",
    "release_xfer_handle",
    "remove_remote_agent",
    "send_notif",
    "transfer",
)
_TRY_S = 60.0


def _load() -> str | None:
    if importlib.util.find_spec("nixl") is None:
        return "NIXL is not installed"
    # As vLLM does when it is the first to import it: without a bound UCX may keep memory.
    os.environ.setdefault("UCX_RCACHE_MAX_UNRELEASED", "1024")
    try:
        api = importlib.import_module(_API)
        agent = api.nixl_agent
        missing = [name for name in _AGENT if not hasattr(agent, name)]
        if missing:
            raise AttributeError(f"this version has no {', '.join(missing)}")
        _config(api)
    except Exception as error:  # noqa: BLE001 (a compiled module raises anything)
        for name in (_API, "nixl._bindings"):
            sys.modules[name] = None  # type: ignore[assignment]
        return f"NIXL cannot be loaded: {type(error).__name__}: {error}"
    return None


def _config(api: Any) -> Any:
    """The settings that the connector uses."""
    api.nixl_agent_config(num_threads=0, capture_telemetry=True)
    return api.nixl_agent_config(enable_prog_thread=False, capture_telemetry=True)


PROBLEM = _load()  # why NIXL cannot be used, or None


def try_agent(*, here: bool) -> str | None:
    """Make what every engine with NIXL has; :return: why that is impossible, or None.

    :param here: in this process; else in one of its own, as it may occupy a GPU.
    """
    if PROBLEM is not None:
        return PROBLEM
    if not here:
        return _try_elsewhere()
    try:
        api = importlib.import_module(_API)
        api.nixl_agent("trial", _config(api))
    except Exception as error:  # noqa: BLE001 (a compiled module raises anything)
        return f"NIXL cannot be used: {type(error).__name__}: {error}"
    return None


def _try_elsewhere() -> str | None:
    code = f"from {__name__} import try_agent as t; import sys; sys.exit(t(here=True))"
    command = [sys.executable, "-c", code]
    try:
        tried = subprocess.run(command, capture_output=True, text=True, timeout=_TRY_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"NIXL cannot be tried: {error}"
    if tried.returncode == 0:
        return None
    said = tried.stderr.strip().splitlines() or [f"its process ended with {tried.returncode}"]
    return said[-1]
