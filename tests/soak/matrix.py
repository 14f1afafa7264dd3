"""The whole crash matrix: every line of the journals with every fault. Writes docs/failures.md.

`./run soak matrix [--method METHOD] [--stop WORD] [--fault WORD] [--again] [--seconds N]`: the words choose stops
and faults by a part of their names. What was seen is added to docs/failures.jsonl, and docs/failures.md is made of
that; cells that are in it already are not played again, unless you say `--again`. Several methods may be played at
once.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path

from tests.lab.crash import FAULTS, IN_POD, ROLLBACK, Cell, Fault, Verdict
from tests.lab.lab import Lab
from tests.lab.settings import CHECKOUT
from tests.lab.stops import ROLLBACK_STOPS, STOPS, Stop

RESULTS = CHECKOUT / "docs/failures.jsonl"
DOCUMENT = CHECKOUT / "docs/failures.md"
METHODS = ("lazy", "full", "cold", ROLLBACK, IN_POD)
HEAD = """\
<!-- Made by ./run soak matrix; do not edit. -->
# What happens when something fails

Each cell is one real migration of a container with `--restart=always` that writes rows to
SQLite in a volume, in a lab of two hosts with systemd, podman, runc and CRIU. The migration is stopped at a line of
a host's journal, the fault is made right there, and a client outside watches all the time. In every cell it is
checked that

- no two copies ever answered (by what the container counts, from outside),
- its memory is right, page by page,
- no acknowledged row is lost and no row is doubled,
- both hosts are clean afterwards: no mounts, network namespaces, packet filters, processes, scopes, bans or files.

Hosts are killed with all their processes at once, and booted again after ten seconds. `reconnect_limit_s` is 6 here
(60 by default), `fallback` is `stay`.

By the `cold` method its memory is new wherever it ends, and its rows are what counts. `rollback` is not a method: a
lazy migration was cut off after its commit until a human was called, and the fault is made while that human lets
the container run again where it was (`lifeboat recover --resume-here`, said again until it is done).

`pod` is no method either: a lazy migration of the container's pod, in which another container never stops talking
to it over loopback. Both must be in the same place afterwards, and of the same time.

**source**: it runs on there as if nothing had happened; in brackets how many seconds after the fault it answered
again. **target**: it runs there; in brackets the longest time without an answer. **anew**: its memory was lost with
a host, and its restart policy started it again there. **human**: it stands still, nothing is thrown away, and an
alert says what `lifeboat recover` can do. An empty cell was not played; `-`: the fault could not be made there.
"""


def main(argv: list[str]) -> int:
    """Play the cells; return 0 when nothing went wrong."""
    parser = argparse.ArgumentParser(prog="run soak matrix", description=__doc__)
    parser.add_argument("--method", default="lazy", choices=METHODS)
    parser.add_argument("--stop", default="", help="only stops whose name has this word")
    parser.add_argument("--fault", default="", help="only faults whose name has this word")
    parser.add_argument("--again", action="store_true", help="also cells that were played before")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="begin no cell after so long")
    arguments = parser.parse_args(argv)
    known = set() if arguments.again else {key(item) for item in read()}
    played = []
    deadline = time.monotonic() + arguments.seconds
    with tempfile.TemporaryDirectory() as directory, Lab(2, name=f"matrix-{arguments.method}") as lab:
        cell = Cell(lab, Path(directory), method=arguments.method)
        for stop, fault in cells(arguments.method):
            chosen = arguments.stop in stop.name and arguments.fault in fault.name
            if not chosen or (arguments.method, stop.name, fault.name) in known:
                continue
            if time.monotonic() > deadline:
                break
            played.append(play(cell, stop, fault))
    DOCUMENT.write_text(document(read()))
    bad = [item for item in played if item.wrong]
    print(f"{len(played)} cells, {len(bad)} of them wrong")
    return 1 if bad else 0


def stops_of(method: str) -> tuple[Stop, ...]:
    """Return where a migration by this method is stopped."""
    return ROLLBACK_STOPS if method == ROLLBACK else STOPS


def cells(method: str) -> Iterator[tuple[Stop, Fault]]:
    """Yield all cells, slantwise: however early it is ended, every stop and every fault has had its turn."""
    stops = stops_of(method)
    for shift in range(len(stops)):
        for number, fault in enumerate(FAULTS):
            yield stops[(number + shift) % len(stops)], fault


def key(verdict: Verdict) -> tuple[str, str, str]:
    """Return which cell it is of."""
    return verdict.method, verdict.stop, verdict.fault


def play(cell: Cell, stop: Stop, fault: Fault) -> Verdict:
    """Play one cell and tell."""
    began = time.monotonic()
    verdict = cell.run(stop, fault)
    verdict.day = time.strftime("%Y-%m-%d", time.gmtime())
    cell.put_away()
    took = f"{time.monotonic() - began:.1f} s, gap {verdict.gap_s}, thawed {verdict.thawed_s}"
    print(
        f"{verdict.stop:<26} {verdict.fault:<30} {verdict.outcome:<20} {took} {verdict.wrong or ''} {verdict.said}"
    )
    sys.stdout.flush()
    with RESULTS.open("a") as file:
        file.write(json.dumps(asdict(verdict)) + "\n")
    return verdict


def read() -> list[Verdict]:
    """Return all that was ever seen; the last verdict of a cell counts."""
    if not RESULTS.exists():
        return []
    found = [Verdict(**json.loads(line)) for line in RESULTS.read_text().splitlines()]
    return list({key(item): item for item in found}.values())


def document(verdicts: Iterable[Verdict]) -> str:
    """Return docs/failures.md."""
    by_cell = {key(item): item for item in verdicts}
    lines = [HEAD]
    for method in METHODS:
        played = [item for item in by_cell.values() if item.method == method]
        if played:
            lines += table(method, by_cell, played)
    lines += [
        f"- **{item.method}, {item.stop}, {item.fault}**: {'; '.join(item.wrong)}"
        for item in by_cell.values()
        if item.wrong
    ]
    thawed = [item.thawed_s for item in by_cell.values() if item.thawed_s and item.method in ("lazy", "full")]
    if thawed:
        lines.append(f"Where it stayed it answered again {min(thawed):.2f} to {max(thawed):.2f} s after the fault.")
    return "\n".join(lines) + "\n"


def table(method: str, by_cell: Mapping[tuple[str, str, str], Verdict], played: list[Verdict]) -> Iterator[str]:
    """Yield the lines of one method's table."""
    stops = stops_of(method)
    yield f"## {method.capitalize()}\n"
    yield "| killed or broken | " + " | ".join(stop.name for stop in stops) + " |"
    yield "|---" * (len(stops) + 1) + "|"
    for fault in FAULTS:
        row = [told(by_cell.get((method, stop.name, fault.name))) for stop in stops]
        yield f"| **{fault.name}** | " + " | ".join(row) + " |"
    days = Counter(item.day or "earlier" for item in played)
    when = ", ".join(f"{count} {'on ' * (day != 'earlier')}{day}" for day, count in sorted(days.items()))
    yield f"\n{len(played)} of {len(stops) * len(FAULTS)} cells were played: {when}.\n"


def told(verdict: Verdict | None) -> str:
    """Return one cell of the table."""
    if verdict is None:
        return ""
    if not verdict.struck:
        return "-"
    if verdict.wrong:
        return "**WRONG**"
    if verdict.outcome == "source" and verdict.thawed_s is not None:
        return f"source ({verdict.thawed_s:.1f})"
    return f"target ({verdict.gap_s:.1f})" if verdict.outcome == "target" else verdict.outcome


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
