"""Loads device profiles: TOML files with the times of a model on a device.

There are two kinds. One holds the times themselves, such as a fit to measurements (``[step]``,
``[kv]``, ``[links]``, ``[host]``: `workers.emulation.device`). The other holds the shape of a model
and the data sheet of a device (``[model]``, ``[device]``, ``[host]``), from which a roofline
computes the times (`workers.emulation.roofline`). Profiles in ``workers/emulation/profiles`` can be
named without a path. This module knows no engine and no clock.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from workers import checked
from workers.checked import SettingError
from workers.emulation.device import DeviceProfile, Host, KvShape, Links, StepTimes
from workers.emulation.roofline import Roofline, RooflineError

__all__ = [
    "DeviceProfile",
    "Host",
    "KvShape",
    "Links",
    "ProfileError",
    "StepTimes",
    "load_profile",
]

_SHIPPED = Path(__file__).parent / "profiles"

_Table = TypeVar("_Table", DeviceProfile, Roofline)


class ProfileError(Exception):
    """The profile does not exist, or is wrong; the message names the file and the key."""


def load_profile(name: str, tensor_parallel_size: int | None = None) -> DeviceProfile:
    """Load a shipped profile by its name, or any profile by the path of its file.

    :param tensor_parallel_size: devices that share the model; None: as in the file.
    :raises ProfileError: it cannot be read, or it holds measured times, which are valid only for
        the number of devices that they were measured on.
    """
    path = Path(name) if name.endswith(".toml") else _SHIPPED / f"{name}.toml"
    values = _read(path, name)
    if "model" in values or "device" in values:
        roofline = _as(Roofline, values, path)
        if tensor_parallel_size is not None:
            if tensor_parallel_size < 1:
                raise ProfileError(f"{path}: {tensor_parallel_size} devices cannot share a model")
            parallel = msgspec.structs.replace(roofline.parallel, devices=tensor_parallel_size)
            roofline = msgspec.structs.replace(roofline, parallel=parallel)
        try:
            return roofline.profile()
        except RooflineError as error:
            raise ProfileError(f"{path}: {error}") from error
    if tensor_parallel_size not in (None, 1):
        raise ProfileError(
            f"{path}: its step times hold for the devices that they were measured on; for "
            f"tensor parallelism of {tensor_parallel_size} take a profile with [model] and [device]"
        )
    return _as(DeviceProfile, values, path)


def _read(path: Path, name: str) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        known = [file.stem for file in _SHIPPED.glob("*.toml")]
        hint = checked.nearest(name, known, among="shipped")
        raise ProfileError(f"no device profile {name!r}; {hint}") from error
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: {error}") from error


def _as(kind: type[_Table], values: dict[str, Any], path: Path) -> _Table:
    try:
        return checked.convert(values, kind)
    except SettingError as error:
        raise ProfileError(f"{path}: {error}") from error
