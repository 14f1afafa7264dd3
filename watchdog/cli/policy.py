"""Verbs of policy: check, explain."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from watchdog.cli import show
from watchdog.cli.client import ask
from watchdog.policy.load import load_files, policy_files
from watchdog.toml_files import FileError


def check(arguments: argparse.Namespace) -> int:
    """Check policy files, all in force when none is named; exit status 2 when one has an error."""
    paths = [Path(name) for name in arguments.files] or list(policy_files())
    try:
        policy = load_files(paths)
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
    """Show how every rule stands on every device."""
    found = ask("GET", "/v1/policy")
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
            f"{now - item['since']:.0f} s" if item["since"] else "",
            show.verdict(item["verdict"]) if item["fired"] else "",
        )
        for item in sorted(found, key=lambda item: (not item["fired"], item["device"], item["rule"]))
    ]
    show.table(("DEVICE", "RULE", "VALUE", "LIMIT", "HOLDS FOR", "FIRED"), rows)
    return 0
