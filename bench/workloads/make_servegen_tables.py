"""``python -m bench.workloads.make_servegen_tables FOLDER``: makes the ServeGen tables.

FOLDER is ``data/reason/deepseek-r1`` of a ServeGen checkout. This module decides which part of the
published day the project ships. It takes the clients of the busiest 20 minutes, window by window,
each with the quantiles of its lengths, and the share of reasoning in outputs over the whole day. It
must not know how the tables are used.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from bench.workloads.client_mixture import Client, ClientMixture
from bench.workloads.distributions import TABLES, Probabilities
from bench.workloads.lengths import LengthSource, SharedLengths
from bench.workloads.servegen import read_clients
from bench.workloads.table_reader import TraceError

START_S, END_S = 79_200.0, 80_400.0

# More of them in the tail: a few long requests make up much of the mean.
SHARES = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.99, 0.998, 1)


def main(argv: Sequence[str] | None = None) -> int:
    """Write the tables; :return: the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.workloads.make_servegen_tables", description=__doc__
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=TABLES, metavar="DIR")
    args = parser.parse_args(argv)
    try:
        write_tables(read_clients(args.folder), args.out)
    except (OSError, TraceError) as error:
        print(f"servegen_tables: {error}", file=sys.stderr)
        return 2
    return 0


def write_tables(day: ClientMixture, folder: Path) -> None:
    """Write the three tables.

    :raises OSError: if they cannot be written.
    """
    busiest = [
        client
        for client in day.between(START_S, END_S).clients
        if any(window.rate > 0 for window in client.windows)
    ]
    _write(
        folder / "servegen_r1_clients.csv",
        ("client", "window_start_s", "rate_rps", "family", "shape"),
        (
            (client.name, f"{w.start_s:g}", f"{w.rate:.5g}", w.family, f"{w.shape:.5g}")
            for client in busiest
            for w in client.windows
            if w.rate > 0
        ),
    )
    _write(
        folder / "servegen_r1_client_lengths.csv",
        ("client", "q", "prompt_tokens", "output_tokens", "reason_ratio"),
        (
            (client.name, share, *(f"{law.at(share):.4g}" for law in laws))
            for client in busiest
            for laws in [_laws([client])]
            for share in SHARES
        ),
    )
    shares = _laws(day.clients)[2]
    _write(
        folder / "servegen_r1_reason_ratio.csv",
        ("q", "reason_ratio"),
        ((index / 20, f"{shares.at(index / 20):.4g}") for index in range(21)),
    )


def _laws(clients: Iterable[Client]) -> list[Probabilities]:
    """Distributions of prompt, output and share of reasoning, over all requests of the clients."""
    weights: list[dict[float, float]] = [defaultdict(float) for _ in range(3)]
    for client in clients:
        for lengths, rates in groupby(client.windows, key=lambda window: window.lengths):
            rate = sum(window.rate for window in rates)
            for law, weights_of_law in zip(_of_folder(lengths), weights, strict=True):
                for value, probability in law.items():
                    weights_of_law[value] += rate * probability
    return [Probabilities.of(weights_of_law) for weights_of_law in weights]


def _of_folder(lengths: LengthSource) -> list[dict[float, float]]:
    """The three distributions as probabilities by value."""
    assert isinstance(lengths, SharedLengths)  # a folder has no other kind
    laws = []
    for law in (lengths.prompt, lengths.output, lengths.share):
        assert isinstance(law, Probabilities)
        laws.append(law.probabilities())
    return laws


def _write(path: Path, header: Sequence[str], table: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(table)


if __name__ == "__main__":
    sys.exit(main())
