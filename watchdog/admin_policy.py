"""The part of the admin API about rules: how they stand, silences, what became of evacuations."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import Field

from migrator.errors import LifeboatError, UsageError
from migrator.model import Value
from watchdog.policy.evaluate import Assessment, RuleState
from watchdog.policy.score import score
from watchdog.policy.trace import lines_of
from watchdog.policy.truth import Truth

if TYPE_CHECKING:
    from watchdog.daemon.daemon import Daemon


class SilenceRequest(Value):
    """Silence a rule or a device."""

    what: str = Field(min_length=1)
    seconds: float = Field(gt=0, le=366 * 86400)
    why: str = Field(min_length=1)


class NameRequest(Value):
    """Something by its name."""

    what: str


class TruthRequest(Value):
    """What an evacuation really was for; for `missed`, `what` is the device."""

    what: str
    truth: Truth
    note: str = ""


def add_policy(app: FastAPI, daemon: Daemon) -> None:
    """Add the routes."""
    _add_rules(app, daemon)
    _add_silences(app, daemon)
    _add_cases(app, daemon)


def _add_rules(app: FastAPI, daemon: Daemon) -> None:
    judgement = daemon.judgement

    @app.get("/v1/policy")
    def explain() -> list[dict[str, Any]]:
        return [rule_state(state) for state in daemon.assessment.states]

    @app.post("/v1/policy/reload")
    def reload() -> dict[str, Any]:
        reason = daemon.reload()
        if reason:
            raise UsageError(f"the last good policies stay in force: {reason}", code="bad-file")
        return {"rules": len(judgement.policy.rules)}

    @app.get("/v1/policy/past")
    def past(days: float = 90.0) -> StreamingResponse:
        history = judgement.readings.past(time.time() - days * 86400)
        return StreamingResponse(_encoded(lines_of(history)), media_type="application/x-ndjson")


def _add_silences(app: FastAPI, daemon: Daemon) -> None:
    judgement = daemon.judgement

    @app.post("/v1/silences")
    def silence(request: SilenceRequest) -> dict[str, Any]:
        return judgement.silence(request.what, request.seconds, request.why).model_dump(mode="json")

    @app.post("/v1/silences/end")
    def unsilence(request: NameRequest) -> dict[str, Any]:
        judgement.unsilence(request.what)
        return {"what": request.what}

    @app.post("/v1/forget")
    def forget(request: NameRequest) -> dict[str, Any]:
        device = judgement.forget(request.what)
        daemon.monitor.forget(device.identity)
        daemon.flags.file.check()
        return {"device": device.name, "identity": device.identity}


def _add_cases(app: FastAPI, daemon: Daemon) -> None:
    @app.get("/v1/cases")
    def cases() -> list[dict[str, Any]]:
        return [case.model_dump(mode="json") for case in daemon.ledger.cases]

    @app.post("/v1/cases")
    def judge(request: TruthRequest) -> dict[str, Any]:
        if request.truth is Truth.MISSED:
            return daemon.ledger.missed(request.what, request.note).model_dump(mode="json")
        return daemon.ledger.judge(request.what, request.truth, request.note).model_dump(mode="json")

    @app.get("/v1/score")
    def scores() -> list[dict[str, Any]]:
        return [
            {
                "rule": item.rule,
                "true_alarms": item.true_alarms,
                "false_alarms": item.false_alarms,
                "failures": item.failures,
                "precision": item.precision,
                "recall": item.recall,
            }
            for item in score(daemon.ledger.cases)
        ]


def policy_status(daemon: Daemon) -> dict[str, Any]:
    """Return what `lifeboat status` shows of rules."""
    assessment = daemon.assessment
    return {
        "fired": [fired_text(state) for state in assessment.fired],
        "affected": [device.name for device in assessment.affected],
        "affected_containers": affected_containers(daemon),
        "lead": assessment.lead,
        "rules": len(daemon.policy.rules),
        "rules_loaded_at": daemon.judgement.loaded_at,
        "rules_rejected": daemon.judgement.rejected,
        "quiet": quiet_texts(assessment),
        "silences": [silence.model_dump(mode="json") for silence in daemon.judgement.silences()],
    }


def affected_containers(daemon: Daemon) -> list[str] | None:
    """Return the containers whose storage lies on what fails; None for the whole host, for nothing, or unknown."""
    devices = daemon.assessment.affected
    if not devices or daemon.engine is None:
        return None
    try:
        lost = daemon.losses.of(devices, daemon.engine.containers())
    except LifeboatError:
        return None
    return None if lost.host else sorted(lost.containers)


def fired_text(state: RuleState) -> str:
    """Return a rule that has fired as one sentence."""
    return f"{state.sentence}{f' - {state.quiet}' if state.quiet else ''}"


def quiet_texts(assessment: Assessment) -> list[str]:
    """Return the windows that are open; silences are listed with their end."""
    return [quiet.why for quiet in assessment.quiets if not quiet.either]


def rule_state(state: RuleState) -> dict[str, Any]:
    """Return how a rule stands on a device."""
    distance = None if state.value is None or state.value == float("inf") else state.limit - state.value
    return {
        "rule": state.rule.id,
        "signal": state.rule.signal or None,
        "device": state.device.name,
        "identity": state.device.identity,
        "value": None if state.value == float("inf") else state.value,
        "limit": state.limit,
        "distance": distance,
        "holds": state.holds,
        "fired": state.fired,
        "since": state.since,
        "fired_since": state.course.firings[-1].start if state.course.fired else None,
        "why_not": state.why_not,
        "quiet": state.quiet,
        "verdict": state.rule.verdict,
        "affects": state.rule.affects,
        "mode": state.mode,
        "sentence": state.sentence,
    }


def _encoded(lines: Iterator[str]) -> Iterator[bytes]:
    for line in lines:
        yield line.encode() + b"\n"
