"""Verbs that act: migrate, evacuate, drill, recover, cancel, cordon, uncordon, pause, resume, storm reset."""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import urlencode

from migrator.errors import UsageError
from migrator.terms import Wish
from watchdog.cli import show
from watchdog.cli.client import DaemonError, ask, follow
from watchdog.cli.watch import print_plan, tell_plan


def migrate(arguments: argparse.Namespace) -> int:
    """Move one container, with progress."""
    if arguments.dry_run:
        return _would_migrate(arguments)
    body = {"container": arguments.container, "target": arguments.to, "method": arguments.method}
    return _follow("/v1/migrate", body, as_json=arguments.json)


def evacuate(arguments: argparse.Namespace) -> int:
    """Empty this host, with progress."""
    if arguments.dry_run:
        query = f"&method={arguments.method}" if arguments.method else ""
        found = ask("GET", f"/v1/plan?everything=true{query}")
        return tell_plan(found, as_json=arguments.json)
    return _follow("/v1/evacuate", {"method": arguments.method}, as_json=arguments.json)


def drill(arguments: argparse.Namespace) -> int:
    """Hold a fire drill, with its course."""
    return _follow("/v1/drill", {"everything": arguments.all}, as_json=arguments.json)


def cancel(arguments: argparse.Namespace) -> int:
    """Cancel the evacuation under way, and wait until it has ended."""
    *_, last = follow("/v1/cancel", None)
    flags = ask("GET", "/v1/status")
    if arguments.json:
        show.as_json({**last, "cordoned": flags["cordoned"], "paused": flags["paused"]})
        return int(last.get("status", 0))
    if "message" in last:
        show.line(last["message"])
    stays = ["stays cordoned (lifeboat uncordon)"] if flags["cordoned"] else []
    stays += ["evacuates nothing by itself (lifeboat resume)"] if flags["paused"] else []
    if stays:
        show.line(f"this host {' and '.join(stays)}")
    return _status(last)


def reset_storm(arguments: argparse.Namespace) -> int:
    """Let this host trust its signals again; what turned bad so far does not count any more."""
    found = ask("POST", "/v1/flags/calm")
    if arguments.json:
        show.as_json(found)
    else:
        show.line("the storm guard is reset; a host that is still failing begins to empty itself")
    return 0


def recover(arguments: argparse.Namespace) -> int:
    """Tell of migrations that did not end by themselves, or do what a human decided about one."""
    if arguments.wish is None and arguments.dead is not None:
        raise UsageError(
            f"--{arguments.dead}-is-dead does nothing by itself: say what shall be done",
            code="no-wish",
            hint=" or ".join(f"--{wish}" for wish in Wish),
        )
    if arguments.wish is None:
        return _tell_situations(ask("GET", "/v1/recover"), arguments.migration, as_json=arguments.json)
    if arguments.migration is None:
        raise UsageError("which migration?", code="no-migration", hint="lifeboat recover lists them")
    body = {"migration": arguments.migration, "wish": arguments.wish, "dead": arguments.dead}
    outcome = ask("POST", "/v1/recover", body)
    if arguments.json:
        show.as_json(outcome)
    else:
        show.line(f"{outcome['container']}: {outcome['error']}")
    return 0


def _tell_situations(found: list[dict[str, Any]], migration: str | None, *, as_json: bool) -> int:
    chosen = [item for item in found if migration in (None, item["migration"])]
    if migration is not None and not chosen:
        raise UsageError(
            f"there is no migration {migration!r} that waits for a human",
            code="no-such-migration",
            hint="lifeboat recover lists them",
        )
    if as_json:
        show.as_json(chosen)
        return 0
    for item in chosen:
        peer, says = item["peer"], item["peer_says"] or "nothing"
        show.line(f"{item['migration']}  {item['container']}: this host is its {item['side']}, {peer} the other")
        show.line(f"  where it is: {item['place']}; here: {item['here']}; {peer} says: {says}")
        show.line(f"  --resume-here loses {item['resume_loses']}")
        if item["resume_refused"]:
            show.line(f"    but not now: {item['resume_refused']}")
        show.line(f"  --forget      loses {item['forget_loses']}")
    if not chosen:
        show.line("every migration has ended")
    return 0


def set_flag(arguments: argparse.Namespace) -> int:
    """Set or clear what only an admin decides."""
    found = ask("POST", f"/v1/flags/{arguments.verb}")
    if arguments.json:
        show.as_json(found)
    else:
        cordon = "takes no containers" if found["cordoned"] else "takes containers"
        pause = "does not evacuate by itself" if found["paused"] else "evacuates by itself when failing"
        show.line(f"this host {cordon} and {pause}")
    return 0


def _would_migrate(arguments: argparse.Namespace) -> int:
    query = {"container": arguments.container, "target": arguments.to, "method": arguments.method}
    asked = urlencode({key: value for key, value in query.items() if value is not None})
    against = ask("GET", f"/v1/rehearsal?{asked}")
    if arguments.json:
        show.as_json({"container": arguments.container, "target": arguments.to, "rejections": against})
    elif against:
        show.line(f"{arguments.to} cannot take {arguments.container}:")
        for item in against:
            show.line(f"  {item['reason']} [{item['code']}]")
    else:
        show.line(f"{arguments.container} could go to {arguments.to}")
    return 3 if against else 0


def _follow(path: str, body: dict[str, Any], *, as_json: bool) -> int:
    last: dict[str, Any] = {}
    for line in follow(path, body):
        last = line
        if not as_json:
            _print_progress(line)
    if as_json:
        show.as_json(last)
        return int(last.get("status", 0))
    return _status(last)


def _status(last: dict[str, Any]) -> int:
    """Return the exit status that the last line of a job tells; raises its error."""
    if last.get("error"):
        raise DaemonError(last)
    return int(last.get("status", 0))


def drain_sentence(drain: dict[str, Any]) -> str:
    """Say how a drain goes: its speed, its end, and how long those waited who needed a page at once."""
    said = [f"{drain['bytes_per_s'] / 1e6:.0f} MB/s"]
    if drain["missing_bytes"] and drain["eta_s"] is not None:
        said.append(f"{drain['eta_s']:.0f} s to go")
    if drain["faults"]:
        median, slow = drain["fault_median_us"], drain["fault_p99_us"]
        said.append(f"{drain['faults']} faults, half within {median or '?'} us, 99 % within {slow or '?'} us")
    return f" ({', '.join(said)})"


def _print_progress(line: dict[str, Any]) -> None:
    if "plan" in line:
        print_plan(line["plan"])
    elif line.get("drained_bytes") is not None:
        total = line.get("total_bytes") or 0
        share = f" of about {total >> 20}" if total else ""
        how = drain_sentence(line["drain"]) if line.get("drain") else ""
        show.line(f"{line['container']:<16} drain    {line['drained_bytes'] >> 20}{share} MiB{how}")
    elif progress := line.get("progress"):
        failed = f", {progress['failed']} failed" if progress["failed"] else ""
        eta = f"about {progress['eta_s']:.0f} s to go"
        show.line(f"-- {progress['moved']} of {progress['of']} moved{failed}, {progress['elapsed_s']:.0f} s, {eta}")
    elif "phase" in line:
        show.line(f"{line['container']:<16} {line['phase']:<8} {line.get('message', '')}")
    elif outcome := line.get("outcome"):
        if outcome["phase"] == "done":
            show.line(
                f"{outcome['container']} runs on {outcome['target']}; frozen for {outcome['freeze_ms']:.0f} ms"
            )
    elif "message" in line:
        show.line(line["message"])
