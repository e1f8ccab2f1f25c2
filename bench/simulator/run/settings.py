"""The settings of ``pascal simulate run``: axes that vary, and settings that all cases share.

Every combination of the axes with every seed is a `Case`. This module reads profiles and traces but
is otherwise pure. It imports no engine, so that errors are reported before one is loaded.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.reporting.errors import BenchmarkError
from bench.simulator.defaults import LONGEST
from bench.simulator.results import ORACLE, PolicyRun
from bench.simulator.timeline import TaskMetrics
from bench.simulator.watermark import NAME as WATERMARK
from bench.simulator.watermark import expanded, share_of
from bench.workloads.arrivals import Arrival
from bench.workloads.named import Workload, workload_of
from gateway.config import PlacementConfig
from gateway.policy.placement import Rules
from workers import checked
from workers.checked import Setting, SettingError
from workers.emulation.device import DeviceProfile
from workers.emulation.profile import load_profile
from workers.policy.decide import policy_function
from workers.policy.settings import BASELINES, POLICIES, PolicySettings, is_plugin

_OF_POLICY = {
    name: setting
    for name, setting in checked.settings_of(PolicySettings).items()
    if name != "policy"  # an axis
}
_OF_PLACEMENT = {
    field.name: checked.settings_of(PlacementConfig)[field.name]
    for field in dataclasses.fields(Rules)
    if field.name != "boundary"  # an axis
}
BOUNDARIES: tuple[str, ...] = checked.settings_of(PlacementConfig)["boundary"].choices
_PLACEMENT = "placement."
_MOST_REFUSED = 1000  # refused requests for each measured one, from which the case is given up


@dataclass(frozen=True, slots=True)
class Variant:
    """One combination of values of the axes."""

    policy: str
    boundary: str
    instances: int
    rate: float | None  # requests per second, all instances together; None: the workload's own


@dataclass(frozen=True, slots=True)
class Case:
    """A variant under the arrivals of one seed."""

    variant: Variant
    seed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings that all cases share."""

    source: str  # a workload's name, or a trace's file
    trace_format: str = "auto"
    trace_split: str | None = None
    burstiness: float = 1.0
    profile: str = "h100-qwen32b"
    tensor_parallel_size: int | None = None  # None: the profile's
    kv_share: float = 1.0  # used share of the device's KV memory
    max_num_seqs: int = 1024
    max_num_batched_tokens: int = 8192
    offload: bool = True
    warm_up_s: float = 60.0
    seconds: float = 120.0  # requests that arrive in this time are measured
    num_requests: int | None = None  # number of measured requests, instead of the time
    cool_down_s: float = 60.0  # time of further arrivals after that
    policy_numbers: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    placement: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def device(self) -> DeviceProfile:
        """Load the profile of one instance; raises `workers.emulation.profile.ProfileError`."""
        return load_profile(self.profile, self.tensor_parallel_size)

    def workload(self) -> Workload:
        """Load the workload; raises `BenchmarkError`."""
        return workload_of(self.source, format=self.trace_format, split=self.trace_split)

    def kv_blocks(self, device: DeviceProfile) -> int:
        """KV blocks of one instance, including vLLM's null block."""
        return int(device.kv.blocks * self.kv_share)

    def longest(self, device: DeviceProfile) -> int:
        """Most tokens of prompt and output that one instance can hold."""
        return min(LONGEST, (self.kv_blocks(device) - 1) * device.kv.block_size)

    def rules(self, boundary: str) -> Rules:
        """The rules of placement: the gateway's defaults with the changed values."""
        return Rules(**{**self.placement, "boundary": boundary})


@dataclass(frozen=True, slots=True)
class Load:
    """The requests of one case."""

    arrivals: list[Arrival]
    from_s: float  # requests that arrive from this time on are measured ...
    to_s: float  # ... until this time
    measured: int
    refused: int  # requests of that time that no instance can hold


@dataclass(frozen=True, slots=True)
class CaseRun:
    """The outcome of one case."""

    case: Case
    run: PolicyRun
    refused: int  # requests that no instance could hold
    migrations: int
    busy_share: float  # share of their time in which the instances computed
    kv_peak_share: float  # largest share of its blocks that any instance used
    ended_s: float  # virtual time of the end
    tasks: Sequence[TaskMetrics] = ()  # of agents


def variants(axes: Mapping[str, tuple[Any, ...]]) -> list[Variant]:
    """Return every combination once. The oracle has memory for all requests, so none moves."""
    names = ("policy", "boundary", "instances", "rate")
    combinations = (
        Variant(**dict(zip(names, values, strict=True)))
        for values in itertools.product(*(axes[name] for name in names))
    )
    return list(
        dict.fromkeys(
            dataclasses.replace(variant, boundary="off") if variant.policy == ORACLE else variant
            for variant in combinations
        )
    )


def runnable(chosen: Iterable[Variant]) -> list[Variant]:
    """The variants to run: each share of ``fcfs+watermark`` in its place."""
    return list(
        dict.fromkeys(
            dataclasses.replace(variant, policy=policy)
            for variant in chosen
            for policy in expanded((variant.policy,))
        )
    )


def labels(chosen: list[Variant]) -> dict[Variant, str]:
    """Name variants by the values that differ, such as ``slack, 8 instances``."""
    forms: dict[str, Callable[[Variant], str]] = {
        "boundary": lambda v: v.boundary,
        "instances": lambda v: f"{v.instances} instance{'s' if v.instances > 1 else ''}",
        "rate": lambda v: "own rate" if v.rate is None else f"{v.rate:g}/s",
    }
    kept = [
        form
        for name, form in forms.items()
        if len({getattr(variant, name) for variant in chosen if variant.policy != ORACLE}) > 1
    ]
    return {v: ", ".join([v.policy, *(form(v) for form in kept)]) for v in chosen}


def load_of(settings: Settings, workload: Workload, device: DeviceProfile, case: Case) -> Load:
    """Draw the requests of one case.

    :raises BenchmarkError: there is nothing to measure.
    """
    longest = settings.longest(device)
    arrivals: list[Arrival] = []
    from_s, to_s = settings.warm_up_s, settings.warm_up_s + settings.seconds
    if settings.num_requests is not None:
        to_s = math.inf
    measured = refused = 0
    for arrival in _coming(settings, workload, case):
        if arrival.at_s >= to_s + settings.cool_down_s:
            break
        inside = from_s <= arrival.at_s < to_s
        if arrival.longest > longest:
            refused += inside
            if math.isinf(to_s) and refused > _MOST_REFUSED * (measured + 1):
                break  # of endless arrivals an instance can hold hardly any
            continue
        if inside and measured == settings.num_requests:
            to_s = arrival.at_s
            inside = False
        measured += inside
        arrivals.append(arrival)
    if not measured or (math.isinf(to_s) and refused > _MOST_REFUSED * (measured + 1)):
        problem = (
            f"{refused} of {refused + measured} requests are longer than the {longest} tokens that "
            "an instance can hold"
            if refused
            else f"no request arrives between {from_s:g} s and {to_s:g} s"
        )
        raise BenchmarkError(f"{settings.source}: {problem}")
    if math.isinf(to_s):  # the workload ended before the number was reached
        to_s = math.nextafter(arrivals[-1].at_s, math.inf)
    return Load(arrivals, from_s, to_s, measured, refused)


def _coming(settings: Settings, workload: Workload, case: Case) -> Iterator[Arrival]:
    return workload.arrivals(case.variant.rate, case.seed, burstiness=settings.burstiness)


def numbers_of(settings: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Read ``key=value`` texts: numbers of the policy, and of ``placement``.

    :raises BenchmarkError: naming the key that is wrong.
    """
    policy: dict[str, Any] = {}
    placement: dict[str, Any] = {}
    for text in settings:
        try:
            key, value = checked.split_pair(text)
            if key.startswith(_PLACEMENT):
                name = key.removeprefix(_PLACEMENT)
                placement[name] = _read(_OF_PLACEMENT, name, value, text)
            else:
                policy[key] = _read(_OF_POLICY, key, value, text)
        except SettingError as error:
            raise BenchmarkError(f"--set {error}") from error
    try:
        PolicySettings.of(policy)
    except ValueError as error:
        raise BenchmarkError(f"--set {error}") from error
    try:
        checked.convert(placement, PlacementConfig)
    except SettingError as error:
        raise BenchmarkError(f"--set {_PLACEMENT}{error}") from error
    return policy, placement


def _read(settings: Mapping[str, Setting], key: str, value: str, text: str) -> Any:
    if key not in settings:
        raise SettingError(f"{text}: unknown key {key!r}; {checked.nearest(key, settings)}")
    return checked.from_text(settings[key], value, text)


def check_policies(names: tuple[str, ...]) -> None:
    """:raises BenchmarkError: for a policy that does not exist."""
    known = (*POLICIES, *BASELINES, WATERMARK, ORACLE)
    for name in names:
        try:
            if name in known or share_of(name) is not None:
                continue
        except ValueError as error:
            raise BenchmarkError(f"--policy: {error}") from error
        if not is_plugin(name):
            raise BenchmarkError(f"--policy: unknown policy {name!r}; there are {', '.join(known)}")
        try:
            policy_function(name)
        except SettingError as error:
            raise BenchmarkError(f"--{error}") from error
