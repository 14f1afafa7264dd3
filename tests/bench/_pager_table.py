"""The pager bench's results: kept as JSON, shown as tables."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Iterable
from statistics import median
from typing import Any

from tests.lab.settings import CHECKOUT

RESULTS = CHECKOUT / "docs/bench-pager.json"
PAGE = CHECKOUT / "docs/bench-pager.md"


def load() -> dict[str, Any]:
    """Return what earlier parts found."""
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(results: dict[str, Any]) -> None:
    """Keep the results and make the page of them."""
    results["machine"] = {"kernel": platform.release(), "at": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())}
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(markdown(results))


def markdown(results: dict[str, Any]) -> str:
    """Return the page."""
    machine = results.get("machine", {})
    lines = [
        "# The pager, measured",
        "",
        "Made by `./run bench pager`; do not edit. Both hosts, the container, the client and both ends of every "
        "link share one virtual machine with two processors: a figure is what two busy cores do, not a network. "
        f"Linux {machine.get('kernel', '?')}, {machine.get('at', '?')}.",
        "",
    ]
    for part in (_streams, _drains, _freezes, _memory):
        lines += part(results)
    return "\n".join(lines).rstrip() + "\n"


def rate(run: dict[str, Any]) -> float:
    """Return a drain's speed in 10^6 bytes per second."""
    return float(run["drained_bytes"]) / float(run["drain_s"]) / 1e6


def _streams(results: dict[str, Any]) -> list[str]:
    if not (found := results.get("streams")):
        return []
    rows = [(f"one {kind.upper()} stream, Python", f"{speed:.0f}") for kind, speed in found.items()]
    return _table("Streams between the same two hosts", ("", "MB/s"), rows)


def _drains(results: dict[str, Any]) -> list[str]:
    lines: list[str] = []
    for mode in ("idle", "busy"):
        rows = []
        for pager, found in results.get(f"drain-{mode}", {}).items():
            runs = found["runs"]
            row = [pager, str(found["memory_mib"]), str(len(runs)), f"{median(map(rate, runs)):.0f}"]
            if mode == "busy":
                row += [_middle(run[key] for run in runs) for key in ("median_us", "p99_us", "faults")]
            rows.append(row)
        head = ["pager", "MiB", "runs", "MB/s (median)"]
        head += ["fault, median us", "fault, 99 % us", "faults"] if mode == "busy" else []
        if rows:
            lines += _table(f"Drain, {mode} container", head, rows)
    return lines


def _freezes(results: dict[str, Any]) -> list[str]:
    found = {int(size): [run["stall_ms"] for run in runs] for size, runs in results.get("freeze", {}).items()}
    rows = [
        (f"{size}", f"{len(stalls)}", f"{median(stalls):.0f}", f"{max(stalls):.0f}")
        for size, stalls in sorted(found.items())
    ]
    if not rows:
        return []
    lines = _table("What a client waits at most", ("MiB", "runs", "median ms", "worst ms"), rows)
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
    return _table(title, ("container MiB", "source MiB", "sink MiB"), rows) if rows else []


def _middle(values: Iterable[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{median(known):.0f}" if known else "-"


def _table(title: str, head: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    columns = list(head)
    lines = [f"## {title}", "", "| " + " | ".join(columns) + " |", "|" + " --- |" * len(columns)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]
