"""The pager, side by side with CRIU's own and with plain streams, between two hosts of the lab.

`./run bench pager [--part PART] [--pager "lifeboat"|"lifeboat, no TLS"|"criu"] [--runs 5] [--memory MIB]`; parts:

    streams     what one TCP stream and one TLS stream of Python move between the same two hosts
    drain-idle  the drain of a container that does nothing
    drain-busy  the same while it touches random pages all the time, and how long its page faults take; by CRIU's
                also at 256 MiB, as more may take it too long
    links       the drain of a container that does nothing and one TCP stream, between hosts whose link carries no
                more than an ordinary one: 1 and 10 Gbit/s
    freeze      what a client waits at most, at 64 MiB, 2 GiB and 8 GiB
    memory      what the two programs of our pager take at most, also by a container of 16 GiB; half of that was
                never written, as two hosts of this machine have no room for it twice

Every drain is a whole migration, there and back in turn; what came is checked. Results are added to
docs/bench-pager.json, and docs/bench-pager.md is made of that.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.bench import _pager_table as table
from tests.bench._pager_moves import VARIANTS, Moves
from tests.bench._pager_streams import narrowed, stream_rates
from tests.lab.clean import clean
from tests.lab.lab import Lab

FREEZE_SIZES_MIB = (64, 2048, 8192)
SMALL_MIB = 256
LARGE_MIB = 8192
LINKS_GBIT_S = (1, 10)


def main(argv: list[str]) -> int:
    """Run the parts that are wanted; return 0 when all memory was right."""
    arguments = _arguments(argv)
    results = table.load()
    with Lab(2, name="bench-pager") as lab, tempfile.TemporaryDirectory() as directory:
        for name in arguments.part:
            PARTS[name](lab, Path(directory), arguments, results)
            table.save(results, name)
    print(table.markdown(results))
    return 0


def _arguments(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="run bench pager", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="only this; may be repeated")
    parser.add_argument("--pager", choices=list(VARIANTS), action="append", help="only this; may be repeated")
    parser.add_argument("--runs", type=int, default=5, help="the median of so many is told")
    parser.add_argument("--memory", type=int, default=2048, metavar="MIB", help="of the drains (2048)")
    parser.add_argument("--sizes", type=int, nargs="+", default=FREEZE_SIZES_MIB, metavar="MIB", help="of freeze")
    found = parser.parse_args(argv)
    found.part = found.part or list(PARTS)
    found.pager = found.pager or list(VARIANTS)
    return found


def _streams(lab: Lab, _: Path, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    results["streams"] = stream_rates(lab, arguments.memory, arguments.runs)
    clean(lab)


def _drain(mode: str) -> Callable[[Lab, Path, argparse.Namespace, dict[str, Any]], None]:
    def run(lab: Lab, directory: Path, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
        found = results[f"drain-{mode}"] = {}
        for pager in arguments.pager:
            sizes = {SMALL_MIB, arguments.memory} if (pager, mode) == ("criu", "busy") else {arguments.memory}
            found[pager] = {}
            for mib in sorted(sizes):
                with Moves(lab, directory, pager, mib, mode) as moves:
                    found[pager][str(mib)] = _drains(moves, arguments.runs)
            table.save(results, f"drain-{mode}")

    return run


def _drains(moves: Moves, runs: int) -> list[dict[str, Any]]:
    """Return what some drains took; the first that takes too long is the last one."""
    found: list[dict[str, Any]] = []
    while len(found) < runs and not (found and "unfinished_s" in found[-1]):
        found.append(moves.move())
    if "unfinished_s" not in found[-1]:
        moves.verify()
    return found


def _links(lab: Lab, directory: Path, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    for gbit_s in LINKS_GBIT_S:
        found: dict[str, Any] = {}
        results.setdefault("links", {})[str(gbit_s)] = found
        with narrowed(lab, gbit_s):
            found["tcp"] = stream_rates(lab, arguments.memory, arguments.runs, ["tcp"])["tcp"]
            clean(lab)
        for pager in arguments.pager:
            if pager == "criu":
                continue
            with Moves(lab, directory, pager, arguments.memory, "idle") as moves, narrowed(lab, gbit_s):
                found[pager] = _drains(moves, arguments.runs)
        table.save(results, "links")


def _freeze(lab: Lab, directory: Path, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    for size in arguments.sizes:
        with Moves(lab, directory, "lifeboat", size, "idle") as moves:
            runs = [moves.move(watched=True) for _ in range(arguments.runs)]
        results.setdefault("freeze", {})[str(size)] = runs
        table.save(results, "freeze")


def _memory(lab: Lab, directory: Path, arguments: argparse.Namespace, results: dict[str, Any]) -> None:
    for written, hollow in ((arguments.memory, 0), (LARGE_MIB, LARGE_MIB)):
        with Moves(lab, directory, arguments.pager[0], written, "idle", hollow_mib=hollow) as moves:
            results.setdefault("memory", {})[str(written + hollow)] = moves.move(measured=True)
            moves.verify()


PARTS: dict[str, Callable[[Lab, Path, argparse.Namespace, dict[str, Any]], None]] = {
    "streams": _streams,
    "drain-idle": _drain("idle"),
    "drain-busy": _drain("busy"),
    "links": _links,
    "freeze": _freeze,
    "memory": _memory,
}
