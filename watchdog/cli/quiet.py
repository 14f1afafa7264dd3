"""Verbs of an admin who knows better: silence, unsilence, forget, verdict."""

from __future__ import annotations

import argparse
from typing import Any

from migrator.errors import UsageError
from watchdog.cli import show
from watchdog.cli.client import ask
from watchdog.policy.quantity import duration_s


def seconds(text: str) -> float:
    """Read a duration of the command line."""
    try:
        return duration_s(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def silence(arguments: argparse.Namespace) -> int:
    """Keep a rule or a device from acting and alerting for a time."""
    found = ask(
        "POST", "/v1/silences", {"what": arguments.what, "seconds": arguments.lasting, "why": arguments.why}
    )
    text = f"{found['what']} is silenced until {show.moment(found['until'])}; lifeboat unsilence ends it"
    return _told(arguments, found, text)


def unsilence(arguments: argparse.Namespace) -> int:
    """End a silence."""
    found = ask("POST", "/v1/silences/end", {"what": arguments.what})
    return _told(arguments, found, f"{found['what']} is not silenced any more")


def forget(arguments: argparse.Namespace) -> int:
    """Forget the past of a device that was replaced."""
    found = ask("POST", "/v1/forget", {"what": arguments.device})
    return _told(arguments, found, f"the readings of {found['device']} ({found['identity']}) are forgotten")


def verdict(arguments: argparse.Namespace) -> int:
    """Note what an evacuation really was for, or list all."""
    if arguments.id is None:
        return _cases(arguments)
    if arguments.truth is None:
        raise UsageError("say confirmed, false-alarm or missed", code="no-truth")
    body = {"what": arguments.id, "truth": arguments.truth, "note": arguments.note}
    found = ask("POST", "/v1/cases", body)
    return _told(arguments, found, f"{found['id']}: {found['truth']}")


def _cases(arguments: argparse.Namespace) -> int:
    found: list[dict[str, Any]] = ask("GET", "/v1/cases")
    if arguments.json:
        show.as_json(found)
        return 0
    rows = [
        (
            item["id"],
            show.moment(item["at"]),
            ", ".join(item["devices"]),
            ", ".join(item["rules"]) or "by hand",
            item["truth"] or "not said yet",
            item["note"],
        )
        for item in found
    ]
    show.table(("ID", "BEGAN", "DEVICES", "RULES", "REALLY", "NOTE"), rows)
    return 0


def _told(arguments: argparse.Namespace, value: Any, text: str) -> int:
    if arguments.json:
        show.as_json(value)
    else:
        show.line(text)
    return 0
