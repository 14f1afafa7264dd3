"""`lifeboat check --deep`: a throwaway container goes to every other host, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from migrator.engine import Engine
from migrator.errors import LifeboatError
from migrator.model import Phase
from watchdog.daemon.jobs import Job

FAILED = 3  # exit status: some host cannot take a container


def probe(engine: Engine, targets: Sequence[str], job: Job) -> dict[str, object]:
    """Try each target; one that fails stops none of the others."""
    results = [_probe(engine, target, job) for target in targets]
    return {"probes": results, "status": 0 if all(item["moved"] for item in results) else FAILED}


def _probe(engine: Engine, target: str, job: Job) -> dict[str, object]:
    job.say({"message": f"moving a throwaway container to {target}"})
    try:
        outcome = engine.probe(target)
    except LifeboatError as error:
        return {"target": target, "moved": False, "freeze_ms": None, "code": error.code, "reason": str(error)}
    return {
        "target": target,
        "moved": outcome.phase is Phase.DONE,
        "freeze_ms": outcome.freeze_ms,
        "code": outcome.error_code,
        "reason": outcome.error,
    }
