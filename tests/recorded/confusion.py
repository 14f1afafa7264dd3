"""Judge a labelled collection of recordings, and write docs/confusion.md: `python -m tests.recorded.confusion`.

The collection is not part of this project. It lies beside the checkout in shared/recordings, or where
LIFEBOAT_RECORDINGS says: files and trees, and `manifest.csv` with the columns file, label (healthy, degraded,
failing, unknown) and why.
"""

from __future__ import annotations

import csv
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from watchdog.offline.recorded import in_time_order, read_recording
from watchdog.offline.trial import DeviceTrial, Finding, trials
from watchdog.policy.load import load_files
from watchdog.policy.model import Policy
from watchdog.signals.kernel_patterns import SHIPPED, load_patterns

ROOT = Path(__file__).parents[2]
PLACE = Path(os.environ.get("LIFEBOAT_RECORDINGS", ROOT.parent / "shared/recordings"))
DOCUMENT = ROOT / "docs/confusion.md"
NOW = 1.7e9
WEAR = ("smart.wear_failing", "smart.percentage_used", "smart.spare_margin")
FINDINGS = ("failing", "suspect", "worn", "alert only", "healthy", "unknown")
LABELS = ("failing", "degraded", "healthy", "unknown")
EXPLAINED = {
    ("failing", "worn"): "the drive says FAILED, and the only cause is wear: to be replaced, not to be fled",
    ("failing", "suspect"): "counters without a past: uncorrected errors since boot, and nobody knows when",
    ("degraded", "failing"): "the label goes by the drive's own PASSED; it has hundreds of unreadable sectors",
    ("healthy", "unknown"): "the label goes by the absence of bad news; nothing there that a rule could look at",
    ("degraded", "unknown"): "the recording lacks what a verdict needs: counters that were zero, or a threshold",
}
"""Why a finding differs from a label: (label, finding) -> reason. What is not here may not happen."""

AS_LABELLED = {
    ("failing", "failing"), ("degraded", "suspect"), ("degraded", "worn"), ("degraded", "alert only"),
    ("degraded", "healthy"), ("healthy", "healthy"), ("healthy", "alert only"), ("unknown", "unknown"),
}  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """One recording: its label, and the gravest finding on any device in it."""

    file: str
    label: str
    why: str
    finding: str
    reason: str
    rules: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        """Return the folder of the collection."""
        return self.file.split("/")[0]


def is_there() -> bool:
    """Say whether the collection is there."""
    return (PLACE / "manifest.csv").exists()


def shipped() -> Policy:
    """Return the rules we ship."""
    return load_files(sorted((ROOT / "policies").glob("*.toml")))


def judged() -> Iterator[Judged]:
    """Judge every recording on its own."""
    policy, patterns = shipped(), load_patterns(SHIPPED, ROOT / "none")
    with (PLACE / "manifest.csv").open(newline="") as manifest:
        for row in csv.DictReader(manifest):
            recording = read_recording(str(PLACE / row["file"]), patterns, NOW)
            found = trials(policy, in_time_order([recording], NOW), NOW)
            rules = frozenset(item.state.rule.id for trial in found for item in trial.fired)
            yield Judged(row["file"], row["label"], row["why"], *gravest(found, recording.problem), rules)


def courses() -> Iterator[tuple[str, tuple[DeviceTrial, ...]]]:
    """Judge every series of recordings of one drive, as a history."""
    policy, patterns = shipped(), load_patterns(SHIPPED, ROOT / "none")
    for series in sorted((PLACE / "smart-trend").iterdir()):
        recordings = [read_recording(str(path), patterns, NOW) for path in sorted(series.iterdir())]
        yield series.name, trials(policy, in_time_order(recordings, NOW), NOW)


def gravest(found: Sequence[DeviceTrial], problem: str = "") -> tuple[str, str]:
    """Return the gravest finding of several devices, wear told apart, and its reason."""
    named = [(finding_of(trial), trial.reason) for trial in found] or [("unknown", problem or "nothing was read")]
    order = ("failing", "suspect", "worn", "unknown", "alert only", "healthy")
    return min(named, key=lambda item: order.index(item[0]))


def finding_of(trial: DeviceTrial) -> str:
    """Return a finding with wear and mere alerts told apart."""
    if trial.finding is Finding.SUSPECT:
        acting = [item.state.rule for item in trial.fired if item.state.mode == "act"]
        worn = all(condition.signal in WEAR for rule in acting for condition in rule.conditions)
        return "worn" if worn else "suspect"
    if trial.finding is Finding.HEALTHY and any(item.state.mode == "alert" for item in trial.fired):
        return "alert only"
    return str(trial.finding)


def document() -> str:
    """Return docs/confusion.md."""
    found = list(judged())
    parts = [INTRO.format(count=len(found)), table("all", found)]
    parts += [
        table(kind, [item for item in found if item.kind == kind]) for kind in sorted({i.kind for i in found})
    ]
    parts += ["## Where finding and label differ", *differences(found)]
    parts += ["## Drives over time", TREND, trend_table()]
    parts += ["## Rules seen", SEEN, seen(found)]
    return "\n\n".join(parts) + "\n"


INTRO = """\
<!-- Made by python -m tests.recorded.confusion; do not edit. -->
# What the shipped rules say about recorded devices

{count} recordings from public sources, each judged on its own by the shipped rules, as `lifeboat policy
try FILE` does: outputs of smartctl (linuxhw/EnterpriseDrive, smartctl_exporter, Scrutiny, py-SMART; the drives
of `smart-derived-json` are those of `smart-text`, turned into JSON), trees of sysfs (node_exporter's fixtures),
kernel logs, machine-check records (mcelog's inputs), BMC listings. Labels are mechanical facts of each file:
*failing* (health FAILED, a pre-fail attribute below its threshold, an uncorrected error, a lost disk),
*degraded* (passed, but a counter that should be 0 is not), *healthy*, *unknown* (nothing can be read).

A degraded drive is meant to be found healthy until its counters grow: of 1,156 drives with old errors that
stood still none failed by the next look, of 681 whose counters grew five did. *worn* is `suspect` for wear
alone. A single recording has no past, so rules on growth cannot fire on it; drives over time are below. The
test `tests/recorded/test_confusion.py` holds this table to: nothing labelled unknown is found healthy, nothing
labelled failing is found healthy, nothing labelled healthy makes a host suspect or failing."""

TREND = """\
Several recordings of one drive, a few thousand power-on hours apart, judged together as a history."""


SEEN = """\
Every shipped rule fires on recordings of our own making in the formats of the sources (`tests/recorded/faults.py`).
On the recordings above fire:"""


def seen(found: Sequence[Judged]) -> str:
    """Return which rules fire on how many of these recordings, alone or over time."""
    counted = Counter(rule for item in found for rule in item.rules)
    over_time = Counter(item.state.rule.id for _, trial in courses() for one in trial for item in one.fired)
    lines = ["| rule | recordings | drives over time |", "|---|---|---|"]
    lines += [f"| {rule} | {counted[rule]} | {over_time[rule]} |" for rule in sorted(counted | over_time)]
    return "\n".join(lines)


def table(kind: str, found: Sequence[Judged]) -> str:
    """Return one table: labels down, findings across."""
    counted = Counter((item.label, item.finding) for item in found)
    lines = [f"| {kind} | {' | '.join(FINDINGS)} |", "|---" * (len(FINDINGS) + 1) + "|"]
    for label in LABELS:
        row = [counted[label, finding] for finding in FINDINGS]
        if sum(row):
            lines.append(f"| {label} | {' | '.join(str(number or '') for number in row)} |")
    return "\n".join(lines)


def differences(found: Sequence[Judged]) -> Iterator[str]:
    """Return every kind of difference with its reason and its files."""
    for (label, finding), why in EXPLAINED.items():
        files = [item for item in found if (item.label, item.finding) == (label, finding)]
        if files:
            names = "\n".join(f"- `{item.file}`: {item.why}" for item in files)
            yield f"### Labelled {label}, found {finding}: {len(files)}\n\n{why[0].upper()}{why[1:]}.\n\n{names}"


def trend_table() -> str:
    """Return what is found of drives over time."""
    lines = ["| drives | found | rules that fire |", "|---|---|---|"]
    for name, found in courses():
        rules = sorted({item.state.rule.id for trial in found for item in trial.fired})
        lines.append(f"| {name} | {gravest(found)[0]} | {', '.join(rules)} |")
    return "\n".join(lines)


def main() -> int:
    """Write the document."""
    if not is_there():
        print(f"there are no recordings in {PLACE}", file=sys.stderr)
        return 2
    DOCUMENT.write_text(document())
    return 0


if __name__ == "__main__":
    sys.exit(main())
