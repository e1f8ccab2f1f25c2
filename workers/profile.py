"""How long a device takes: the numbers that emulation and simulation put in the place of a GPU.

A profile is a TOML file; those in ``workers/profiles`` are known by their name. Knows no engine and
no clock. All times are seconds, all sizes tokens or bytes.
"""

from __future__ import annotations

import difflib
import tomllib
from pathlib import Path
from typing import Literal

import msgspec

_SHIPPED = Path(__file__).parent / "profiles"


class ProfileError(Exception):
    """There is no such profile, or it is wrong; the message names the file and the key."""


class StepTimes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Duration of an engine step as a function of what is in it."""

    base_s: float
    per_request_s: float
    per_kv_token_s: float
    prefill_base_s: float
    prefill_per_token_s: float
    prefill_per_token2_s: float

    def seconds(
        self, decodes: int, decode_kv_tokens: int, prefill_tokens: int, prefill_tokens2: int
    ) -> float:
        """One step.

        Below some hundred tokens the matrix products wait for the weights, above for arithmetic,
        so the larger of the two counts; attention comes on top.

        :param decodes: requests that generate one token each.
        :param decode_kv_tokens: KV tokens that these read.
        :param prefill_tokens: prompt tokens, or lost KV, computed in this step.
        :param prefill_tokens2: sum over those requests of n * (2 * c + n): n new tokens after c.
        """
        matrices_s = self.base_s
        if prefill_tokens:
            tokens = prefill_tokens + decodes
            matrices_s = max(self.base_s, self.prefill_base_s + self.prefill_per_token_s * tokens)
        return (
            matrices_s
            + self.per_request_s * decodes
            + self.per_kv_token_s * decode_kv_tokens
            + self.prefill_per_token2_s * prefill_tokens2
        )


class KvShape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """KV memory of one instance."""

    layers: int
    heads: int
    head_dim: int
    dtype_bytes: Literal[1, 2, 4]
    tokens: int
    block_size: int

    @property
    def bytes_per_token(self) -> int:
        """Keys and values of all layers."""
        return 2 * self.layers * self.heads * self.head_dim * self.dtype_bytes

    @property
    def blocks(self) -> int:
        """Whole blocks of the memory."""
        return self.tokens // self.block_size


class Links(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Payload rates, each direction."""

    host_bytes_per_s: float
    network_bytes_per_s: float


class Host(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The machine around the device."""

    offload_bytes: float


class DeviceProfile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One instance: a model on a device."""

    step: StepTimes
    kv: KvShape
    links: Links
    host: Host


def load_profile(name: str) -> DeviceProfile:
    """A shipped profile by its name, or any by the path of its file.

    :raises ProfileError: if it cannot be read.
    """
    path = Path(name) if name.endswith(".toml") else _SHIPPED / f"{name}.toml"
    try:
        profile = msgspec.toml.decode(path.read_bytes(), type=DeviceProfile)
    except FileNotFoundError as error:
        known = sorted(file.stem for file in _SHIPPED.glob("*.toml"))
        close = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"shipped: {', '.join(known)}"
        raise ProfileError(f"no device profile {name!r}; {hint}") from error
    except OSError as error:
        raise ProfileError(f"{path}: {error.strerror}") from error
    except (msgspec.DecodeError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ProfileError(f"{path}: {error}") from error
    _check_positive(profile, path, "")
    return profile


def _check_positive(part: msgspec.Struct, path: Path, prefix: str) -> None:
    for name in part.__struct_fields__:
        value = getattr(part, name)
        if isinstance(value, msgspec.Struct):
            _check_positive(value, path, f"{prefix}{name}.")
        elif not 0 < value < float("inf"):
            raise ProfileError(f"{path}: {prefix}{name} must be above 0, not {value}")
