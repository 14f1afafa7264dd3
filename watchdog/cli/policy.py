"""Verbs of policy that look at this host: check, explain, reload, score."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from watchdog.cli import show
from watchdog.cli.client import ask
from watchdog.policy.load import load_files, policy_files, timing_of
from watchdog.policy.quantity import as_duration
from watchdog.settings import load_settings
from watchdog.toml_files import FileError


def check(arguments: argparse.Namespace) -> int:
    """Check policy files, all in force when none is named; exit status 2 when one has an error."""
    paths = [Path(name) for name in arguments.files] or list(policy_files())
    try:
        policy = load_files(paths, timing_of(load_settings(arguments.settings).signals))
    except FileError as error:
        problems = [
            {"file": str(item.file), "line": item.line, "key": item.key, "message": item.message}
            for item in error.problems
        ]
        if arguments.json:
            show.as_json({"ok": False, "problems": problems})
        else:
            sys.stderr.write(f"{error.message}\n")
        return error.exit_status
    if arguments.json:
        show.as_json({"ok": True, "files": [str(path) for path in paths], "rules": len(policy.rules)})
    else:
        show.line(f"{len(policy.rules)} rules in {len(paths)} files are good")
    return 0


def explain(arguments: argparse.Namespace) -> int:
    """Show how every rule stands on every device, and why it has not fired."""
    found = ask("GET", "/v1/policy")
    wanted = arguments.what
    if wanted:
        found = [item for item in found if wanted in (item["rule"], item["device"], item["identity"])]
    if arguments.json:
        show.as_json(found)
        return 0
    now = time.time()
    rows = [
        (
            item["device"],
            item["rule"],
            show.number(item["value"]),
            f"{item['limit']:g}",
            show.number(item["distance"]) if item["distance"] is not None else "",
            as_duration(now - item["since"]) if item["since"] else "",
            show.verdict(item["verdict"]) if item["fired"] else "",
            _because(item),
        )
        for item in sorted(found, key=lambda item: (not item["fired"], item["device"], item["rule"]))
    ]
    show.table(("DEVICE", "RULE", "VALUE", "LIMIT", "DISTANCE", "HOLDS FOR", "FIRED", "WHY"), rows)
    return 0


def reload(arguments: argparse.Namespace) -> int:
    """Have lifeboatd read the policies anew."""
    found = ask("POST", "/v1/policy/reload")
    if arguments.json:
        show.as_json(found)
    else:
        show.line(f"{found['rules']} rules are in force")
    return 0


def scores(arguments: argparse.Namespace) -> int:
    """Show how good the rules were on this host."""
    found = ask("GET", "/v1/score")
    if arguments.json:
        show.as_json(found)
        return 0
    rows = [
        (
            item["rule"] or "all together",
            item["true_alarms"],
            item["false_alarms"],
            item["failures"],
            _share(item["precision"]),
            _share(item["recall"]),
        )
        for item in found
    ]
    show.table(("RULE", "TRUE ALARMS", "FALSE ALARMS", "FAILURES", "PRECISION", "RECALL"), rows)
    return 0


def _because(item: dict[str, Any]) -> str:
    said = item["why_not"] if not item["fired"] else ("" if item["mode"] == "act" else f"mode {item['mode']}")
    return "; ".join(part for part in (said, item["quiet"]) if part)


def _share(value: float | None) -> str:
    return "nothing to say" if value is None else f"{value:.0%}"
