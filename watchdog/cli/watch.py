"""Verbs that look: status, signals, check, plan, history, show."""

from __future__ import annotations

import argparse
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from migrator.errors import UsageError
from migrator.later import Later
from watchdog.cli import show
from watchdog.cli.client import DaemonError, ask, follow

if TYPE_CHECKING:
    from watchdog.signals import catalog
else:
    catalog = Later("watchdog.signals.catalog")


def status(arguments: argparse.Namespace) -> int:
    """Say how this host is."""
    found = ask("GET", "/v1/status")
    if arguments.json:
        show.as_json(found)
        return 0
    show.line(f"{found['host']}: {found['sentence']}")
    flags = [name for name in ("cordoned", "paused") if found[name]]
    flags += [f"storm: {found['storm']}"] if found["storm"] else []
    show.line(f"verdict {found['verdict']}, state {found['state']}" + "".join(f", {flag}" for flag in flags))
    for sentence in found["fired"]:
        show.line(f"  fired: {sentence}")
    for blind in found["blind"]:
        show.line(f"  blind: {blind}")
    peers = ", ".join(f"{peer['name']} ({peer['address']})" for peer in found["peers"])
    for quiet in (*found["quiet"], *show.silences(found["silences"])):
        show.line(f"  quiet: {quiet}")
    if found["affected"]:
        held = found["affected_containers"]
        lost = "the whole host" if held is None else f"containers {', '.join(held) or 'none'}"
        show.line(f"  affected: {lost}, by the loss of {', '.join(found['affected'])}")
    for item in found["staged"]:
        age = "not complete yet" if item["fresh_at"] is None else f"as of {show.moment(item['fresh_at'])}"
        kept = f"; a whole checkpoint of {show.moment(item['kept_at'])}" if item["kept_at"] else ""
        show.line(f"  staged: {item['container']} at {item['target']}, {age}{kept}")
    loaded = show.moment(found["rules_loaded_at"])
    show.line(f"{found['rules']} rules in force since {loaded}; peers: {peers or 'none'}")
    registry = found["registry"]
    if registry and registry["kind"] != "embedded":
        lost = ", ".join(f"{host} for {since_s:.0f} s" for host, since_s in registry["lost_s"].items())
        says = "answers" if registry["answers"] else "is silent; migrations go on without it"
        show.line(f"registry: {registry['kind']} {says}" + (f"; not heard of: {lost}" if lost else ""))
    if found["rules_rejected"]:
        show.line(f"the policies on disk are NOT in force: {found['rules_rejected']}")
    return 0


def signals(arguments: argparse.Namespace) -> int:
    """List what the host tells about itself."""
    if arguments.catalog:
        return _catalog(as_json=arguments.json)
    found = ask("GET", "/v1/signals")
    if arguments.json:
        show.as_json(found)
        return 0
    rows = [_signal_row(item) for item in sorted(found, key=lambda item: (item["identity"], item["signal"]))]
    show.table(("DEVICE", "SIGNAL", "VALUE", "AGE", "TREND", "SOURCE", "AFFECTS", "WHY"), rows)
    blind = sum(item["value"] is None for item in found)
    if blind:
        show.line(f"{blind} of {len(found)} signals cannot be read: that is not the same as healthy")
    return 0


def _signal_row(item: dict[str, Any]) -> tuple[str, ...]:
    trend, last = item["trend"], item["last_value"]
    changed = f"{trend['change']:+g} in {show.duration(trend['over_s'])}" if trend and trend["change"] else ""
    value = show.number(item["value"])
    if item["value"] is None and last is not None:
        value += f" for {show.duration(item['blind_for_s'])}, was {last:g}"
    age = show.duration(item["age_s"])
    return item["device"], item["signal"], value, age, changed, item["source"], _affects(item), item["reason"]


def _affects(item: dict[str, Any]) -> str:
    """Say what would be lost with a device."""
    lost = item["affects"]
    return "?" if lost is None else lost if isinstance(lost, str) else ", ".join(lost) or "nothing"


def _catalog(*, as_json: bool) -> int:
    known = [(item.name, str(item.kind), item.unit, item.description) for item in catalog.CATALOG.values()]
    if as_json:
        show.as_json([dict(zip(("signal", "kind", "unit", "description"), row, strict=True)) for row in known])
    else:
        show.table(("SIGNAL", "KIND", "UNIT", "MEANING"), known)
    return 0


def check(arguments: argparse.Namespace) -> int:
    """Say for each container whether it could be moved now; exit status 3 when one could not."""
    if arguments.deep:
        return _check_deep(arguments)
    if arguments.to:
        raise UsageError(
            "--to is for --deep alone", code="bad-arguments", hint=f"lifeboat check --deep --to {arguments.to}"
        )
    query = f"?container={quote(arguments.container)}" if arguments.container else ""
    found = ask("GET", f"/v1/check{query}")
    if arguments.json:
        show.as_json(found)
    else:
        print_verdicts(found)
    return 0 if all(row["movable"] or row["kept"] for row in found) else 3


def _check_deep(arguments: argparse.Namespace) -> int:
    """Move a throwaway container to each host, and say how that went."""
    if arguments.container:
        raise UsageError(
            "--deep moves a throwaway container, not one of yours",
            code="bad-arguments",
            hint=f"lifeboat check {arguments.container}, or lifeboat check --deep",
        )
    last: dict[str, Any] = {}
    for line in follow("/v1/probe", {"target": arguments.to}):
        last = line
        if "message" in line and not arguments.json:
            show.line(line["message"])
    if "probes" not in last:
        raise DaemonError(last)
    if arguments.json:
        show.as_json(last["probes"])
    else:
        rows = [
            (item["target"], "yes" if item["moved"] else "NO", f"{item['freeze_ms'] or 0:.0f} ms", item["reason"])
            for item in last["probes"]
        ]
        show.table(("TARGET", "MOVED", "FREEZE", "REASON"), rows)
    return int(last["status"])


def print_verdicts(found: list[dict[str, Any]]) -> None:
    """Print every container with every host for people; the planned target comes first and is marked."""
    rows = []
    for row in found:
        targets = sorted(row["targets"], key=lambda target: (target["host"] != row["target"], target["host"]))
        name = row["container"]
        if row["kept"] or not any(target["fits"] or target["rejections"] for target in targets):
            rows.append((name, "any", "stays" if row["kept"] else "NO", "-", row["reason"]))
            continue
        for target in targets:
            chosen = "yes, chosen" if target["host"] == row["target"] else "yes"
            why = row["reason"] if target["host"] == row["target"] else ""
            why = "; ".join(f"{item['reason']} [{item['code']}]" for item in target["rejections"]) or why
            rows.append((name, target["host"], chosen if target["fits"] else "NO", target["method"] or "-", why))
    show.table(("CONTAINER", "TARGET", "CAN GO", "METHOD", "REASON"), rows)
    for row in found:
        for note in row["notes"] if row["movable"] else ():
            show.line(f"{row['container']}: {note}")


def plan(arguments: argparse.Namespace) -> int:
    """Show what this host would do by itself now: move everything, or only what a failing device takes along."""
    query = f"?method={arguments.method}" if arguments.method else ""
    return tell_plan(ask("GET", f"/v1/plan{query}"), as_json=arguments.json)


def tell_plan(found: dict[str, Any], *, as_json: bool) -> int:
    """Show a plan; exit status 3 when something that is to leave cannot."""
    if as_json:
        show.as_json(found)
    else:
        print_plan(found)
    return 3 if _stuck(found) else 0


def _stuck(found: dict[str, Any]) -> list[str]:
    return [item["container"] for item in found["migrations"] if not item["target"] and not item["kept"]]


def print_plan(found: dict[str, Any]) -> None:
    """Print a plan for people: what will not make it comes first."""
    late = [item["container"] for item in found["migrations"] if item["late"]]
    if late:
        show.line(f"NOT IN TIME, this host lasts about {found['time_left_s']:.0f} s: {', '.join(late)}")
    if stuck := _stuck(found):
        show.line(f"NO TARGET: {', '.join(stuck)}")
    rows = [
        (
            item["container"],
            item["target"] or "-",
            item["method"] if item["target"] else "-",
            f"{item['memory_bytes'] >> 20} MiB",
            f"{item['expected_freeze_ms']} ms" if item["target"] else "-",
            f"{item['begins_s']:.0f}-{item['ends_s']:.0f} s" if item["target"] else "-",
            "; ".join([item["reason"], *item["warnings"]]),
        )
        for item in found["migrations"]
    ]
    show.table(("CONTAINER", "TARGET", "METHOD", "MEMORY", "FREEZE", "WHEN", "REASON"), rows)
    for warning in found["warnings"]:
        show.line(f"warning: {warning}")
    show.line(f"all over after about {found['ends_s']:.0f} s")


def history(arguments: argparse.Namespace) -> int:
    """List past migrations, newest first."""
    found = ask("GET", f"/v1/history?limit={arguments.limit}")
    if arguments.json:
        show.as_json(found)
        return 0
    rows = [
        (
            item["migration"],
            item["container"],
            f"{item['source']} -> {item['target']}",
            item["method"],
            item["phase"],
            f"{item['freeze_ms']:.0f} ms" if item["freeze_ms"] else "",
            item["error"],
        )
        for item in found
    ]
    show.table(("ID", "CONTAINER", "WAY", "METHOD", "ENDED", "FREEZE", "ERROR"), rows)
    return 0


def show_one(arguments: argparse.Namespace) -> int:
    """Show the course of one migration."""
    found = ask("GET", f"/v1/history/{quote(arguments.id)}")
    if arguments.json:
        show.as_json(found)
        return 0
    began = found["events"][0]["at"]
    for event in found["events"]:
        moment = datetime.fromtimestamp(event["at"]).astimezone().strftime("%Y-%m-%d %H:%M:%S")
        show.line(f"{moment}  +{event['at'] - began:8.3f} s  {event['phase']:<8} {event.get('message', '')}")
    return 0
