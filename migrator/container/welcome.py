"""The question whether containers fit: how a host answers it, and how it is asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from fastapi import APIRouter

from migrator.container.fit import refusals
from migrator.container.here import Look
from migrator.model import ContainerFacts, Rejection
from migrator.protocol.messages import FitAnswer, FitQuestion
from migrator.target.hall import Hall


def routes(hall: Hall) -> APIRouter:
    """Return the route that answers for this host."""
    router = APIRouter()

    @router.post("/v1/fit")
    def fit(question: FitQuestion) -> FitAnswer:
        look = Look(hall)
        return FitAnswer(
            rejections={
                container.id: found
                for container in question.containers
                if (found := refusals(container, look.here(container)))
            }
        )

    return router


def with_answers(containers: Sequence[ContainerFacts], answers: Iterable[FitAnswer]) -> list[ContainerFacts]:
    """Return the containers, each with what the hosts that were asked say against it."""
    said: dict[str, list[Rejection]] = defaultdict(list)
    for answer in answers:
        for container, rejections in answer.rejections.items():
            said[container] += rejections
    return [item.model_copy(update={"unfit": tuple(said[item.id])}) for item in containers]
