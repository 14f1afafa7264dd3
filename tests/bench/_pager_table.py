"""The pager bench's results: kept as JSON, shown as tables."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable
from statistics import median
from typing import Any

from tests.bench._pager_streams import KINDS
from tests.lab.settings import CHECKOUT

RESULTS = CHECKOUT / "docs/bench-pager.json"
PAGE = CHECKOUT / "docs/bench-pager.md"


def load() -> dict[str, Any]:
    """Return what earlier parts found."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(results: dict[str, Any], part: str) -> None:
    """Keep the results, of which this part is new, and make the page of them."""
    results["kernel"] = platform.release()
    results.setdefault("at", {})[part] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """Return the page."""
    lines = [
        "# The pager, measured",
        "",
        "Made by `./run bench pager`; do not edit. Both hosts, the container, the client and both ends of every "
        "link share one virtual machine with two processors: a figure is what two busy cores do, not a network. "
        f"Linux {results.get('kernel', '?')}.",
        "",
    ]
    for part in (_streams, _drains, _links, _freezes, _memory):
        lines += part(results)
    return "\n".join(lines).rstrip() + "\n"


def rate(run: dict[str, Any]) -> float:
    """Return a drain's speed in 10^6 bytes per second."""
    return float(run["drained_bytes"]) / float(run["drain_s"]) / 1e6


def _streams(results: dict[str, Any]) -> list[str]:
    if not (found := results.get("streams")):
        return []
    rows = [(KINDS[kind], f"{speed:.0f}") for kind, speed in found.items()]
    return _table("Streams between the same two hosts", ("", "MB/s"), rows, _at(results, "streams"))


def _drains(results: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for mode in ("idle", "busy"):
        rows = []
        for pager, sizes in results.get(f"drain-{mode}", {}).items():
            rows += [[pager, *_drain_row(int(mib), runs, mode)] for mib, runs in sizes.items()]
        head = ["pager", "MiB", "runs", "MB/s (median)"]
        head += ["fault, median us", "fault, 99 % us", "faults"] if mode == "busy" else []
        if rows:
            lines += _table(f"Drain, {mode} container", head, rows, _at(results, f"drain-{mode}"))
    return lines


def _drain_row(mib: int, runs: list[dict[str, Any]], mode: str) -> list[str]:
    if limit_s := runs[-1].get("unfinished_s"):
        row = [str(mib), str(len(runs)), f"< {mib * 1.048576 / limit_s:.0f} (not done after {limit_s} s)"]
        return row + (["-"] * 3 if mode == "busy" else [])
    row = [str(mib), str(len(runs)), f"{median(map(rate, runs)):.0f}"]
    return row + (
        [_middle(run[key] for run in runs) for key in ("median_us", "p99_us", "faults")] if mode == "busy" else []
    )


def _links(results: dict[str, Any]) -> list[str]:
    rows = []
    for gbit_s, found in results.get("links", {}).items():
        stream = float(found["tcp"])
        rows.append((gbit_s, KINDS["tcp"], f"{stream:.0f}", "100"))
        for pager, runs in found.items():
            if pager != "tcp":
                speed = median(map(rate, runs))
                rows.append((gbit_s, f"drain, {pager}", f"{speed:.0f}", f"{100 * speed / stream:.0f}"))
    head = ("Gbit/s", "", "MB/s", "% of the stream")
    return _table("Over an ordinary link", head, rows, _at(results, "links")) if rows else []


def _freezes(results: dict[str, Any]) -> list[str]:
    found = {int(size): [run["stall_ms"] for run in runs] for size, runs in results.get("freeze", {}).items()}
    rows = [
        (f"{size}", f"{len(stalls)}", f"{median(stalls):.0f}", f"{max(stalls):.0f}")
        for size, stalls in sorted(found.items())
    ]
    if not rows:
        return []
    lines = _table(
        "What a client waits at most", ("MiB", "runs", "median ms", "worst ms"), rows, _at(results, "freeze")
    )
    if len(found) > 1:
        small, large = min(found), max(found)
        growth = (median(found[large]) - median(found[small])) / ((large - small) / 1024)
        lines += [f"Growth: {growth:.1f} ms per GiB.", ""]
    return lines


def _memory(results: dict[str, Any]) -> list[str]:
    rows = [
        (size, *(f"{found['peak_kib'].get(name, 0) / 1024:.0f}" for name in ("migrator.shim", "migrator.pager")))
        for size, found in sorted(results.get("memory", {}).items(), key=lambda item: int(item[0]))
    ]
    title = "Peak memory of our own programs"
    return _table(title, ("container MiB", "source MiB", "sink MiB"), rows, _at(results, "memory")) if rows else []


def _middle(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.0f}" if known else "-"


def _at(results: dict[str, Any], part: str) -> str:
    return str(results.get("at", {}).get(part, "?"))


def _table(title: str, head: Iterable[str], rows: Iterable[Iterable[str]], at: str) -> list[str]:
    columns = list(head)
    lines = [f"## {title}", "", f"{at}.", "", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]
