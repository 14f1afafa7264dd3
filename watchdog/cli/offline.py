"""Verbs of policy that need no daemon: new, try, replay; and record, which makes what replay reads."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import chain
from pathlib import Path
from typing import Any, TextIO

from migrator.errors import UsageError
from watchdog.cli import show
from watchdog.cli.client import lines
from watchdog.offline.backblaze import Growing, is_backblaze, read_rows
from watchdog.offline.recorded import Recording, in_time_order, read_recording
from watchdog.offline.replay import Alarm, Record, alarms, device_years, records
from watchdog.offline.sample import SAMPLE
from watchdog.offline.trial import DeviceTrial, Finding, trials
from watchdog.policy.load import load_files, policy_files
from watchdog.policy.model import Policy
from watchdog.policy.quantity import as_duration
from watchdog.policy.trace import read_lines
from watchdog.signals.kernel_patterns import load_patterns
from watchdog.signals.series import ReadingHistory

STATUS = {Finding.HEALTHY: 0, Finding.SUSPECT: 7, Finding.FAILING: 8, Finding.UNKNOWN: 9}
"""Exit status of `try`, by the gravest finding: failing, suspect, unknown, healthy."""

GRAVEST_FIRST = (Finding.FAILING, Finding.SUSPECT, Finding.UNKNOWN, Finding.HEALTHY)
OWN = "this host's own history"


def new(arguments: argparse.Namespace) -> int:
    """Print a policy file to begin with."""
    if arguments.json:
        show.as_json({"policy": SAMPLE})
    else:
        sys.stdout.write(SAMPLE)
    return 0


def judge_recorded(arguments: argparse.Namespace) -> int:
    """Judge recorded output of devices."""
    policy, now = _policy(arguments), time.time()
    patterns = load_patterns()
    recordings = [read_recording(name, patterns, now) for name in arguments.files]
    found = trials(policy, in_time_order(recordings, now), now)
    problems = [item for item in recordings if item.problem or not item.readings]
    worst = min((item.finding for item in found), key=GRAVEST_FIRST.index, default=Finding.UNKNOWN)
    if problems and worst is Finding.HEALTHY:
        worst = Finding.UNKNOWN
    if arguments.json:
        show.as_json(
            {"verdict": worst, "files": [_file(item) for item in recordings], "devices": [_trial(t) for t in found]}
        )
    else:
        _print_trials(recordings, found, verbose=arguments.signals)
    return STATUS[worst]


def _file(recording: Recording) -> dict[str, Any]:
    problem = recording.problem or ("" if recording.readings else "nothing in it is a signal")
    return {
        "file": recording.name,
        "read_as": recording.kind,
        "signals": len(recording.readings),
        "problem": problem,
    }


def _trial(trial: DeviceTrial) -> dict[str, Any]:
    return {
        "device": trial.device.name,
        "identity": trial.device.identity,
        "about": dict(trial.device.about),
        "verdict": trial.finding,
        "reason": trial.reason,
        "fired": [
            {
                "rule": item.state.rule.id,
                "verdict": item.state.rule.verdict,
                "mode": item.state.mode,
                "sentence": item.state.sentence,
                "only_if": item.only_if,
            }
            for item in trial.fired
        ],
        "signals": [{"signal": item.signal, "value": item.value, "reason": item.reason} for item in trial.readings],
    }


def _print_trials(recordings: list[Recording], found: tuple[DeviceTrial, ...], *, verbose: bool) -> None:
    for recording in recordings:
        told = _file(recording)
        text = told["problem"] or f"{told['signals']} signals, read as {told['read_as']}"
        show.line(f"{recording.name}: {text}")
    for trial in sorted(found, key=lambda item: GRAVEST_FIRST.index(item.finding)):
        known = len([item for item in trial.readings if item.readable])
        show.line(
            f"{trial.device.name}: {trial.finding}: {trial.reason} "
            f"({known} of {len(trial.readings)} signals readable)"
        )
        for item in trial.fired:
            only_if = f", {item.only_if}" if item.only_if else ""
            show.line(f"  {item.state.mode}: {item.state.rule.verdict}: {item.state.sentence}{only_if}")
        for reading in trial.readings:
            if verbose or not reading.readable:
                show.line(f"  {reading.signal} {show.number(reading.value)} {reading.reason}".rstrip())


def record(arguments: argparse.Namespace) -> int:
    """Print this host's readings of the past as a trace."""
    for line in _own_lines(arguments.days):
        sys.stdout.write(f"{line}\n")
    return 0


def replay(arguments: argparse.Namespace) -> int:
    """Run rules over the past."""
    policy = _policy(arguments)
    history, failures = _past(arguments)
    now = max((series.runs[-1].until for series in history.series.values()), default=time.time())
    found, years = alarms(policy, history, failures, now), device_years(history)
    told = records(found, failures, years)
    per_host = float(arguments.disks_per_host)
    if arguments.json:
        show.as_json(
            {
                "devices": len({key[1] for key in history.series}),
                "device_years": years,
                "failures": len(failures),
                "records": [_record(item, per_host) for item in told],
                "alarms": [_alarm(item) for item in found],
            }
        )
        return 0
    show.line(
        f"{len({key[1] for key in history.series})} devices, {years:.2f} device-years, {len(failures)} failures"
    )
    if arguments.alarms:
        _print_alarms(found)
    rows = [
        (
            item.name or "any rule",
            show.verdict(item.verdict),
            item.alarms,
            f"{item.foretold} of {item.failures}",
            "" if item.median_lead_s is None else as_duration(item.median_lead_s),
            item.false_alarms,
            "" if item.false_per_device_year is None else f"{item.false_per_device_year * per_host:.3g}",
        )
        for item in told
    ]
    head = ("RULE", "VERDICT", "ALARMS", "FORETOLD", "LEAD", "FALSE", "FALSE PER HOST-YEAR")
    show.table(head, rows)
    return 0


def _record(item: Record, per_host: float) -> dict[str, Any]:
    rate = item.false_per_device_year
    return {**vars(item), "false_per_host_year": None if rate is None else rate * per_host}


def _alarm(item: Alarm) -> dict[str, Any]:
    return {
        "rule": item.rule.id,
        "verdict": item.rule.verdict,
        "device": item.device.name,
        "identity": item.device.identity,
        "start": item.start,
        "end": item.end,
        "failed_at": item.failed_at,
        "lead_s": item.lead_s,
    }


def _print_alarms(found: tuple[Alarm, ...]) -> None:
    rows = [
        (
            show.moment(item.start),
            "" if item.end is None else show.moment(item.end),
            item.device.name,
            item.rule.id,
            show.verdict(item.rule.verdict),
            "" if item.lead_s is None else f"{as_duration(item.lead_s)} before it failed",
        )
        for item in found
    ]
    show.table(("FIRED", "CLEARED", "DEVICE", "RULE", "VERDICT", ""), rows)


def _policy(arguments: argparse.Namespace) -> Policy:
    policy = load_files([Path(name) for name in arguments.policy or ()] or list(policy_files()))
    if not policy.rules:
        raise UsageError("there are no rules to judge by", code="no-rules", hint="--policy FILE")
    return policy


def _past(arguments: argparse.Namespace) -> tuple[ReadingHistory, dict[str, float]]:
    """Return the history to replay: of files, or this host's own."""
    if not arguments.files:
        return read_lines(_own_lines(arguments.days), OWN)
    growing = Growing()
    traces: list[tuple[ReadingHistory, dict[str, float]]] = []
    for name in arguments.files:
        with closing(_opened(name)) as file:
            first = file.readline()
            rest = chain([first], file)
            if is_backblaze(first):
                read_rows(rest, name, growing)
            else:
                traces.append(read_lines(rest, name))
    history, failures = dict(growing.history().series), dict(growing.failures)
    for trace, failed in traces:
        history.update(trace.series)
        failures.update(failed)
    return ReadingHistory(history), failures


def _opened(name: str) -> TextIO:
    try:
        return Path(name).open(encoding="utf-8", newline="")
    except OSError as error:
        raise UsageError(f"{name}: {error.strerror}", code="no-such-file") from error


def _own_lines(days: float) -> Iterator[str]:
    return lines(f"/v1/policy/past?days={days:g}")
