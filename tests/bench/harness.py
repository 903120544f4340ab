# Copyright: the elephaas.herd authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What all measurements share: contenders in turn, medians, a table for people and a last line for scripts.

A measurement compares with a peer or a floor *in the same run*, in turn: a ratio of two numbers that were taken
minutes apart says how busy the machine was.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
COLLECTIONS = ROOT / ".build" / "collections"


@dataclass(frozen=True)
class Times:
    """Wall clock times of one contender, in seconds, in the order of the rounds."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one: a hiccup of the machine moves a mean, and not this."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> str:
        """Fastest and slowest, for the table."""
        return f"{min(self.seconds):.2f}-{max(self.seconds):.2f}"


def turns(names: Iterable[str], rounds: int) -> Iterator[str]:
    """Every name once in each round; who comes first moves on by one from round to round."""
    order = list(names)
    for _round in range(rounds):
        yield from order
        order.append(order.pop(0))


def take_turns(
    contenders: Mapping[str, Callable[[], object]], rounds: int, before: Callable[[], object] = lambda: None
) -> dict[str, Times]:
    """Time every contender *rounds* times, in turn.

    before: what puts everything into the same state for each of them; not timed.
    """
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for name in turns(contenders, rounds):
        before()
        started = time.perf_counter()
        contenders[name]()
        taken[name].append(time.perf_counter() - started)
    return {name: Times(tuple(seconds)) for name, seconds in taken.items()}


def run(argv: Sequence[str | Path], keep: bool = True, timeout_s: float = 600, **options: Any) -> str:
    """Run a program; its standard output, which is thrown away unread where *keep* is false.

    Ends the measurement, with what the program said, when it fails.
    """
    done = subprocess.run(
        [str(word) for word in argv],
        stdout=subprocess.PIPE if keep else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=timeout_s,
        **options,
    )
    if done.returncode != 0:
        sys.exit(f"{Path(argv[0]).name} ended with {done.returncode}:\n{done.stdout or ''}\n{done.stderr}")
    return done.stdout or ""


def print_table(head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as they need to be; the first to the left, numbers to the right, floats with two digits."""
    cells = [list(head), *([f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(head))]
    for line in cells:
        first, *others = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def print_result(name: str, **values: float) -> None:
    """The last line, for scripts: `bench NAME: key=1.23 …`; whole numbers without digits behind the point."""
    said = (f"{key}={value:.2f}" if isinstance(value, float) else f"{key}={value}" for key, value in values.items())
    print(f"bench {name}:", *said, flush=True)
