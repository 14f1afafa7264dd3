"""What a peer may ask this host to run.

A source sends podman's own description of a container, `config.dump` and `spec.dump`, and podman believes every
word of it: a command that runs on the host when the container ends, paths that it writes, directories of the host
that it mounts, hooks, capabilities. So both are checked here against what was proposed, before podman sees them.
What is not known to be harmless is refused: in the preparation, with the reasons, and the container goes on at its
source.

It is no wall against a peer that is taken over altogether: CRIU restores the processes its images describe, with
the capabilities that stand in them. Whose images are restored is decided by the roll.
"""

from __future__ import annotations

import json
from typing import Any

from migrator.admission import configuration, specification
from migrator.admission.rules import Joined, Places, Terms
from migrator.errors import PrerequisiteError
from migrator.model import ContainerFacts, PodFacts
from migrator.protocol.messages import ParkRequest

HINT = "what a host takes is in docs/decisions/0081; see also migrator.accept_privileged and migrator.shared_paths"


def admit(container: ContainerFacts, request: ParkRequest, terms: Terms, places: Places) -> ParkRequest:
    """Return what podman may be given; raises `PrerequisiteError` with every reason why it may not."""
    request = _moved_in(request, container, terms)
    config, spec = _object(request.configuration, "config.dump"), _object(request.specification, "spec.dump")
    status = _object(request.network_status, "network.status")
    problems = [
        *configuration.problems(config, container, places, terms),
        *specification.problems(spec, container, places, terms),
        *configuration.network_problems(status, container),
    ]
    if problems:
        raise PrerequisiteError(
            f"{container.name} is not taken: {'; '.join(problems)}", code="not-admitted", hint=HINT
        )
    return ParkRequest(
        configuration=json.dumps(configuration.ours(config, spec, container, places, terms)),
        specification=json.dumps(specification.without_shared_namespaces(spec)),
        network_status=json.dumps(status),
    )


def _moved_in(request: ParkRequest, container: ContainerFacts, terms: Terms) -> ParkRequest:
    """Name the pod that was made here wherever the documents name that of the source, by its id or its infra's."""
    if container.pod is None or terms.joined is None:
        return request

    def ours(text: str, pod: PodFacts, joined: Joined) -> str:
        return text.replace(pod.infra, joined.infra).replace(pod.id, joined.pod)

    return request.model_copy(
        update={
            "configuration": ours(request.configuration, container.pod, terms.joined),
            "specification": ours(request.specification, container.pod, terms.joined),
        }
    )


def _object(text: str, name: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise PrerequisiteError(f"{name} is not JSON", code="not-admitted") from error
    if not isinstance(value, dict):
        raise PrerequisiteError(f"{name} is no object", code="not-admitted")
    return value
