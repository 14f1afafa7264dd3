"""Evacuations in a row, there and back, with random faults; the seed makes them the same again.

`./run soak evacuations [--count 50] [--seed N] [--results FILE]`: before each one a fault and a stop are drawn.
What did not end by itself is counted as such, and after each one it is checked what the crash matrix checks, and
that the daemons have not grown: open files.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path

from tests.lab.crash import DAEMON, FAULTS, Cell, Fault
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.stops import STOPS

NOTHING = Fault("nothing", lambda _: None)
GROWTH = 24  # open files a daemon may have more than after the first one: connections to peers come and go


def main(argv: list[str]) -> int:
    """Play the evacuations; return 0 when nothing was lost and nothing grew."""
    parser = argparse.ArgumentParser(prog="run soak evacuations", description=__doc__)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, help="a file of verdicts, one JSON a line; grows")
    arguments = parser.parse_args(argv)
    choose = random.Random(arguments.seed)  # noqa: S311  it has to be repeatable
    bad = 0
    with tempfile.TemporaryDirectory() as directory, Lab(2, name="evacuations") as lab:
        cell = Cell(lab, Path(directory))
        opened: dict[str, int] = {}
        for number in range(arguments.count):
            fault = choose.choice([NOTHING, *(item for item in FAULTS if not item.limited)])
            stop = choose.choice(STOPS)
            began = time.monotonic()
            verdict = cell.run(stop, fault)
            cell.put_away()
            for host in (cell.source, cell.target):
                verdict.wrong += grown(cell, host, opened)
            bad += bool(verdict.wrong)
            print(f"{number + 1:>3} {asdict(verdict)} {time.monotonic() - began:.0f} s")
            sys.stdout.flush()
            if arguments.results is not None:
                with arguments.results.open("a") as file:
                    file.write(f"{asdict(verdict)}\n")
    print(f"{arguments.count} evacuations with seed {arguments.seed}, {bad} of them wrong")
    return 1 if bad else 0


def grown(cell: Cell, host: Host, opened: dict[str, int]) -> list[str]:
    """Return a complaint when the daemon of a host has many more open files than at its beginning."""
    if not host.running:
        return []
    daemons = cell.processes(host, DAEMON)
    if len(daemons) != 1:
        return []
    pid = daemons[0]
    files = len(list(Path(f"/proc/{pid}/fd").iterdir()))
    first = opened.setdefault(f"{host.name}:{pid}", files)
    return [f"{host.name}: lifeboatd has {files} open files, {first} at first"] if files > first + GROWTH else []


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
