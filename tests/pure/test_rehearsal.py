"""What `lifeboat migrate --dry-run` asks: the same as a migration does, of a container or of all of a pod."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from migrator.container.known import KnownContainers
from migrator.errors import PeerError, PrerequisiteError, UsageError
from migrator.model import ContainerFacts, HostFacts, Method
from migrator.outlook import Outlook
from migrator.peers.neighbours import Neighbours
from migrator.protocol.messages import FitAnswer
from migrator.runtime.cgroup import Cgroup
from migrator.settings import MigratorSettings
from tests.pure.test_known import House, house
from tests.pure.values import container, host, obstacles, pod
from watchdog.admin import names_of

__all__ = ["house"]


class Beta:
    """A cluster of this host and beta, which tells its facts or does not answer."""

    def __init__(self, facts: HostFacts | None) -> None:
        self.beta = facts

    def client(self, name: str) -> Any:
        if name != "beta":
            raise UsageError(f"{name!r} is no host of this cluster", code="unknown-peer")
        return self

    def facts(self) -> HostFacts:
        if self.beta is None:
            raise PeerError("beta does not answer", code="peer-silent")
        return self.beta

    def fit_of(self, *_: object) -> FitAnswer:
        return FitAnswer(rejections={})


def outlook(house: House, *known: ContainerFacts, beta: HostFacts | None) -> Outlook:
    """Return what this host makes of these containers, the first of which was asked for, and beta."""
    return Outlook(
        MigratorSettings(),
        house.journal,
        cast(Neighbours, Beta(beta)),
        lambda: host("alpha"),
        cast(KnownContainers, SimpleNamespace(together=lambda _: known)),
        staged=dict,
    )


def codes(found: Outlook, method: Method | None = None) -> list[str]:
    """Return the codes of what speaks against it."""
    return [item.code for item in found.rehearse("web", "beta", method)]


def test_the_method_that_was_asked_for_is_the_one_that_is_judged(house: House) -> None:
    web = container("web")
    found = outlook(house, web, beta=host("beta", creates_for_others=False))
    assert codes(found) == []
    assert codes(found, Method.COLD) == ["target-refuses-cold"]


def test_what_keeps_one_of_a_pod_keeps_the_pod(house: House) -> None:
    web = container("web", pod=pod())
    db = container("db", pod=pod(), obstacles=obstacles("it has a terminal", *Method))
    (only,) = outlook(house, web, db, beta=host("beta")).rehearse("peas", "beta", None)
    assert (only.code, only.reason) == ("container-unsupported", "db cannot be moved: it has a terminal")
    found = outlook(house, web, container("db", pod=pod()), beta=None).rehearse("peas", "beta", None)
    assert [item.reason for item in found] == ["web: beta does not answer", "db: beta does not answer"]


def test_a_pod_goes_by_its_name_too() -> None:
    assert names_of(container("web", pod=pod("peas"))) == ("web", "web", "peas", "c" * 64)
    assert names_of(container("web")) == ("web", "web")


def test_a_silent_host_takes_nothing_and_a_stranger_is_a_mistake(house: House) -> None:
    found = outlook(house, container("web"), beta=None)
    assert codes(found) == ["peer-silent"]
    with pytest.raises(UsageError, match="no host of this cluster"):
        found.rehearse("web", "gamma", None)
    with pytest.raises(PrerequisiteError, match="web is not running"):
        outlook(house, container("web", running=False), beta=None).rehearse("web", "beta", None)


def test_of_two_copies_none_is_to_be_removed_by_hand(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cgroup, "frozen", property(lambda _: True))
    with pytest.raises(PrerequisiteError, match="remove neither by hand; lifeboat recover says") as refused:
        outlook(house, beta=host("beta")).rung(container("web"), "beta", None, planned=True)
    assert refused.value.code == "container-frozen"
