"""A fire drill: a marked signal goes the whole way of a real one, containers leave, are verified, and come back.

The rule `drill` (policies/drill.toml) judges the mark as any other signal, so what is tried is what would run
on the day: readings, rules, verdict, the question to the other hosts, plan, reservations, migrations. Only the
order is narrower: it names the containers of the drill.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from migrator.choice.labels import wishes
from migrator.engine import Engine
from migrator.errors import CallAHumanError, ExecutionError, LifeboatError, PrerequisiteError
from migrator.health import Verdict
from watchdog.daemon.evacuation import exit_status
from watchdog.daemon.jobs import Job
from watchdog.daemon.order import Cause, Order
from watchdog.daemon.readings import Readings
from watchdog.policy.evaluate import Assessment
from watchdog.signals.model import Device, DeviceKind, Reading

SIGNAL, RULE = "lifeboat.drill", "drill"
DEVICE = Device(DeviceKind.HOST, "host:drill", "the fire drill")
VERDICT_LIMIT_S = 60.0
EVACUATION_LIMIT_S = 3600.0
LOOK_S = 0.1


def is_drill(assessment: Assessment) -> bool:
    """Say whether the verdict rests on a drill's mark and on nothing real."""
    return bool(assessment.acting) and all(state.rule.id == RULE for state in assessment.acting)


class Drill:
    """The drill of this host; at most one at a time."""

    def __init__(self, readings: Callable[[], Readings]) -> None:
        self._readings = readings
        self._only: tuple[str, ...] = ()
        self._evacuation: Job | None = None
        self._running = False

    def clear(self) -> None:
        """Take the mark away, also one that an earlier daemon left when it died in a drill."""
        history = self._readings().history()
        if any(series.signal == SIGNAL for series in history.series.values()):
            self._mark(0.0)

    def order(self) -> Order:
        """Return what the verdict of a drill orders: its containers, and none when no drill is under way."""
        return Order(cause=Cause.DRILL, only=self._only)

    def began(self, evacuation: Job) -> None:
        """Take note of the evacuation that the mark has led to."""
        self._evacuation = evacuation

    def check(self, engine: Engine, assessment: Assessment, *, everything: bool, hindrance: str) -> tuple[str, ...]:
        """Return the names of the containers of a drill; raises `PrerequisiteError` when there can be none."""
        if self._running:
            raise PrerequisiteError("a drill is under way", code="drill-under-way", temporary=True)
        if assessment.verdict is not Verdict.HEALTHY:
            raise PrerequisiteError(
                f"this host is {assessment.verdict} as it is; a drill is for healthy hosts", code="not-healthy"
            )
        if hindrance:
            raise PrerequisiteError(f"a failing host would not move anything now: {hindrance}", code="not-ready")
        found = engine.containers()
        names = tuple(item.name for item in found if everything or wishes(item.labels).canary)
        if not names:
            raise PrerequisiteError(
                "no running container carries the label lifeboat.canary=yes",
                code="no-canary",
                hint="podman run --label lifeboat.canary=yes ..., or lifeboat drill --all",
            )
        return names

    def run(
        self, job: Job, engine: Engine, names: tuple[str, ...], verdict: Callable[[], Verdict]
    ) -> dict[str, Any]:
        """Drill, and return the report; what was moved is asked back whatever went wrong."""
        self._running, self._only, self._evacuation = True, names, None
        report = _Report(job)
        moved: list[dict[str, Any]] = []
        try:
            self._mark(1.0)
            report.step("marked", f"the signal {SIGNAL} is set; the drill is about {', '.join(names)}")
            self._wait(lambda: verdict() is Verdict.FAILING, VERDICT_LIMIT_S, "the verdict")
            report.step("judged", "the verdict is failing")
            moved = self._evacuated(report, names)
        except LifeboatError as error:
            report.failed(str(error))
        finally:
            self._mark(0.0)
            self._bring_back(report, engine, moved, verdict)
            self._running, self._only = False, ()
        return report.told(names, moved)

    def _evacuated(self, report: _Report, names: tuple[str, ...]) -> list[dict[str, Any]]:
        self._wait(lambda: self._evacuation is not None, VERDICT_LIMIT_S, "the evacuation to begin")
        report.step("evacuating", "the evacuation has begun")
        evacuation = self._evacuation
        self._wait(lambda: evacuation is not None and evacuation.ended, EVACUATION_LIMIT_S, "the evacuation")
        last = evacuation.lines[-1] if evacuation else {}
        moved: list[dict[str, Any]] = last.get("moved", [])
        report.lost = last.get("status") == CallAHumanError.exit_status
        for item in moved:
            report.step(
                "moved", f"{item['container']} runs on {item['target']}, frozen for {item['freeze_ms']:.0f} ms"
            )
        for name in names:
            if name not in {item["container"] for item in moved}:
                report.failed(
                    f"{name} did not leave: {last.get('left', {}).get(name, last.get('error', 'no reason'))}"
                )
        return moved

    def _bring_back(
        self, report: _Report, engine: Engine, moved: list[dict[str, Any]], verdict: Callable[[], Verdict]
    ) -> None:
        """Ask every target to give back what it got; it does so for drills, and for nothing else."""
        try:
            self._wait(lambda: verdict() is Verdict.HEALTHY, VERDICT_LIMIT_S, "this host to be healthy again")
        except LifeboatError as error:
            report.failed(str(error))
        for item in moved:
            try:
                if item["container"] in {found.name for found in engine.containers()}:
                    report.step("back", f"{item['container']} came back with its pod")
                    continue
                freeze_ms = engine.ask_back(item["migration"], item["target"])
                if item["container"] not in {found.name for found in engine.containers()}:
                    raise ExecutionError(f"{item['container']} does not run here", code="not-back")
                report.step("back", f"{item['container']} runs here again, frozen for {freeze_ms:.0f} ms")
            except LifeboatError as error:
                report.failed(f"{item['container']} is still on {item['target']}: {error}")

    def _mark(self, value: float) -> None:
        self._readings().take([Reading(SIGNAL, DEVICE, time.time(), value)])

    def _wait(self, happened: Callable[[], bool], limit_s: float, what: str) -> None:
        deadline = time.monotonic() + limit_s
        while not happened():
            if time.monotonic() > deadline:
                raise ExecutionError(f"waited {limit_s:g} s for {what}", code="drill-timeout")
            time.sleep(LOOK_S)


class _Report:
    """The course of a drill, told as it goes."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._began_at = time.monotonic()
        self._steps: list[dict[str, Any]] = []
        self._failures: list[str] = []
        self.lost = False  # a container neither left nor runs here as before

    def step(self, what: str, words: str) -> None:
        """Tell of one step."""
        after_s = round(time.monotonic() - self._began_at, 2)
        self._steps.append({"step": what, "after_s": after_s, "words": words})
        self._job.say({"message": f"+{after_s:7.2f} s  {words}"})

    def failed(self, words: str) -> None:
        """Tell of a failure."""
        self._failures.append(words)
        self.step("failed", words)

    def told(self, names: tuple[str, ...], moved: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the whole report."""
        verdict = "failed" if self._failures else "passed"
        text = f"the drill {verdict}: {len(moved)} of {len(names)} containers left and "
        text += f"{sum(step['step'] == 'back' for step in self._steps)} came back"
        status = exit_status(left=bool(self._failures), lost=self.lost)
        return {"message": text, "steps": self._steps, "failures": self._failures, "status": status}
