"""``pascal simulate calibrate``: a device profile from the step log of a running worker.

Start a worker with ``workers.step_log_dir``, let it serve, and pass the files that it writes. Step
logs do not contain the rates of links and the memory of the host: flags set them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bench.policies.engine_clock import CLOCKS, ClockName
from bench.reporting.console import OK, REFUSED, give_up
from bench.reporting.errors import BenchmarkError
from bench.reporting.outputs import prepare_json, write_json
from bench.validation.step_fit import Fit, fit_steps
from workers.emulation.device import BatchTable, DeviceProfile, Host, KvShape, Links
from workers.step_log import Header, LoggedStep, StepLogError, read_step_log

QUIET = 0.95  # share of its working time in which the engine's thread had a processor
_KV_DTYPES = (1, 2, 4)  # bytes, as `KvShape` has them

# PCIe 5.0 and 100 Gb/s, as in the shipped profiles.
_LINKS = Links(host_bytes_per_s=25e9, network_bytes_per_s=12.5e9)
_HOST = Host(offload_bytes=4 * 2.0**30)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add all flags of ``pascal simulate calibrate``."""
    add = parser.add_argument
    add(
        "logs",
        nargs="+",
        type=Path,
        metavar="LOG",
        help="step logs of equal workers",
    )
    add("--output", type=Path, required=True, metavar="FILE.toml", help="write the profile")
    add("--json", type=Path, metavar="FILE", help="write the errors of the fit")
    add(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="time to fit (default: %(default)s)",
    )
    for name, default, what in (
        ("host", _LINKS.host_bytes_per_s, "between the device and its host, bytes per second"),
        ("network", _LINKS.network_bytes_per_s, "between instances, bytes per second"),
    ):
        add(f"--{name}-bytes-per-s", type=float, default=default, metavar="RATE", help=what)
    add(
        "--offload-bytes",
        type=float,
        default=_HOST.offload_bytes,
        metavar="BYTES",
        help="host memory for preempted KV",
    )


def run(args: argparse.Namespace) -> int:
    """Fit and write; :return: the exit status."""
    try:
        _check(args)
        prepare_json(args.json, keep=False)
        header, steps = read_logs(args.logs)
        fit = fit_steps(steps, args.clock)
        profile = profile_of(fit, header, links_of(args), Host(offload_bytes=args.offload_bytes))
        args.output.write_text(to_toml(profile, provenance(header, fit, args.clock)), "utf-8")
    except (BenchmarkError, StepLogError) as error:
        return give_up(REFUSED, error)
    except OSError as error:
        return give_up(REFUSED, f"--output {args.output}: {error.strerror}")
    console = Console()
    console.print(fit_table(fit))
    if header.device == "cpu" and args.clock == "wall" and fit.share.had < QUIET:
        console.print(
            f"The machine was busy: the engine's thread had a processor for {fit.share.had:.0%} of "
            "the time of its steps. --clock processor fits only that time."
        )
    console.print(f"{args.output} written")
    write_json(args.json, fit_json(fit))
    return OK


def _check(args: argparse.Namespace) -> None:
    if args.output.suffix != ".toml":
        raise BenchmarkError(f"--output {args.output}: a device profile's name ends in .toml")
    for flag in ("host_bytes_per_s", "network_bytes_per_s", "offload_bytes"):
        if not 0 < (value := getattr(args, flag)) < float("inf"):
            raise BenchmarkError(f"--{flag.replace('_', '-')}: must be above 0, not {value}")
    if not args.output.parent.is_dir():
        raise BenchmarkError(f"--output {args.output}: there is no folder {args.output.parent}")


def read_logs(paths: Sequence[Path]) -> tuple[Header, list[LoggedStep]]:
    """The steps of all logs, which must come from equal engines.

    :raises StepLogError: if one cannot be read.
    :raises BenchmarkError: if they come from different engines.
    """
    headers: list[Header] = []
    steps: list[LoggedStep] = []
    for path in paths:
        header, steps_of_log = read_step_log(path)
        if headers and header != headers[0]:
            raise BenchmarkError(f"{path}: not from the same engine as {paths[0]}")
        headers.append(header)
        steps += steps_of_log
    return headers[0], steps


def links_of(args: argparse.Namespace) -> Links:
    """The rates of the flags."""
    return Links(
        host_bytes_per_s=args.host_bytes_per_s, network_bytes_per_s=args.network_bytes_per_s
    )


def profile_of(
    fit: Fit, header: Header, links: Links = _LINKS, host: Host = _HOST
) -> DeviceProfile:
    """A profile with the fitted times and the memory of that engine.

    :raises BenchmarkError: if profiles do not support the size of its KV elements.
    """
    if header.dtype_bytes not in _KV_DTYPES:
        raise BenchmarkError(f"KV elements of {header.dtype_bytes} bytes: not 1, 2 or 4")
    kv = KvShape(
        layers=header.layers,
        heads=header.heads,
        head_dim=header.head_dim,
        dtype_bytes=header.dtype_bytes,  # type: ignore[arg-type]  # one of them
        tokens=(header.kv_blocks - 1) * header.block_size,  # vLLM never gives the first block out
        block_size=header.block_size,
    )
    return DeviceProfile(step=fit.times, kv=kv, links=links, host=host)


def provenance(header: Header, fit: Fit, clock: ClockName) -> str:
    """The comment at the top of a profile."""
    return (
        f"{Path(header.model).name} on {header.device}: fitted by `pascal simulate calibrate` to "
        f"{fit.steps} engine steps,\n# {clock} time; error of {fit.window_error:.1%} over 50 steps "
        f"on average. Links and host were not measured."
    )


def to_toml(profile: DeviceProfile, about: str) -> str:
    """The text of a profile, as `workers.emulation.profile.load_profile` reads it."""
    tables = {
        "step": profile.step,
        "step.table": profile.step.table,
        "kv": profile.kv,
        "links": profile.links,
        "host": profile.host,
    }
    lines = [f"# {about}"]
    for name, table in tables.items():
        if table is None:
            continue
        lines += ["", f"[{name}]"]
        for field in table.__struct_fields__:
            value = getattr(table, field)
            if not isinstance(value, BatchTable | None):
                lines.append(f"{field} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: int | float | tuple[int | float, ...]) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    return f"{value:.6g}" if isinstance(value, float) and value % 1 else f"{value:_}"


def fit_table(fit: Fit) -> Table:
    """The fitted times as a table for the terminal."""
    times = fit.times
    table = Table(title=f"Fitted to {fit.steps} steps")
    table.add_column("what")
    table.add_column("ms", justify="right")
    assert times.table is not None
    for size, seconds in zip(times.table.decodes, times.table.seconds, strict=True):
        table.add_row(f"a step, {size} decoding", f"{1e3 * seconds:.3f}")
    table.add_row("1,000 KV tokens read", f"{1e6 * times.per_kv_token_s:.3f}")
    table.add_row("a step with prefill, in addition", f"{1e3 * times.prefill_base_s:.3f}")
    table.add_row("100 tokens of prefill", f"{1e5 * times.prefill_per_token_s:.3f}")
    prefill2_s = times.prefill_per_token2_s * 1000 * 1000
    table.add_row("attention of a prompt of 1,000", f"{1e3 * prefill2_s:.3f}")
    table.add_section()
    table.add_row("error of a step, median", f"{fit.median_error:.1%}")
    table.add_row("error over 50 steps, mean", f"{fit.window_error:.1%}")
    return table


def fit_json(fit: Fit) -> dict[str, object]:
    """Plain values."""
    return {
        "steps": fit.steps,
        "median_error": fit.median_error,
        "window_error": fit.window_error,
        "processor_share": fit.share.had,
    }
