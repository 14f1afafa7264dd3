"""What is known of containers while some of them move: podman is a script that waits for a lock as podman does."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrator.container import known
from migrator.container.known import KnownContainers
from migrator.errors import PrerequisiteError
from migrator.model import ContainerFacts, MigrationOutcome, Phase, VolumeMount
from migrator.outlook import under_way
from migrator.protocol.journal import Decision, Journal, Side
from migrator.runtime.podman import all_but
from migrator.settings import MigratorSettings
from tests.pure.values import container

WAIT_S = 20.0
HEX = st.text("0123456789abcdef", min_size=6, max_size=6)
IDS = {name: number * 16 for name, number in (("web", "a1b2"), ("db", "a1b3"), ("mail", "c0de"))}

PODMAN = '''\
#!{python}
"""Tells of three containers; whoever looks at one whose lock is held waits until it is not."""
import json, os, re, sys, time
from pathlib import Path

place, names = Path(os.environ["PODMAN_PLACE"]), {names}
words = sys.argv[1:]


def look(name):
    (place / f"asked-{{name}}").touch()
    while (place / f"locked-{{name}}").exists():
        time.sleep(0.02)
    return names[name]


def listed():
    said = dict(word.removeprefix("--filter=").split("=", 1) for word in words if word.startswith("--filter="))
    for name in list(names):
        if re.search(said.get("id", ""), names[name]) and ("volume" not in said or name in ("web", "db")):
            yield {{"Id": look(name), "Names": [name], "State": "running", "Labels": {{}}, "Ports": []}}


def inspected(name):
    return {{
        "Id": look(name), "Name": name, "ImageName": "i", "Image": "1", "OCIRuntime": "runc", "StaticDir": "/s",
        "State": {{"Running": True, "Pid": os.getppid()}}, "NetworkSettings": {{"Networks": {{}}}},
        "Mounts": [{{"Type": "volume", "Name": "shared", "Source": "/v", "Destination": "/v", "RW": True}}]
        if name in ("web", "db") else [],
        "Config": {{}}, "HostConfig": {{}}, "GraphDriver": {{"Name": "overlay", "Data": {{"UpperDir": "/s/u"}}}},
    }}


if words[0] == "ps":
    print(json.dumps(list(listed())))
elif words[:2] == ["container", "inspect"]:
    print(json.dumps([inspected(name) for name, number in names.items() if {{name, number}} & set(words)]))
elif words[0] == "image":
    print(json.dumps([{{"Size": 1}}]))
else:
    print("[]")
'''


@given(ids=st.sets(HEX, min_size=1, max_size=5), asked=HEX)
def test_the_expression_means_all_others(ids: set[str], asked: str) -> None:
    expression = re.compile(all_but(ids))
    assert bool(expression.search(asked)) == (asked not in ids)


class House:
    """A host with a journal, and the script for podman."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.journal = Journal(place / "journal.db")
        self.known = KnownContainers(self.journal, MigratorSettings())

    def lock(self, name: str) -> None:
        """Hold a container's lock, as podman's parked checkpoint does."""
        (self.place / f"locked-{name}").touch()

    def begin(self, name: str, side: Side = Side.SOURCE, *, leaves: bool = True) -> ContainerFacts:
        """Let a container set out, or let a checkpoint be made of it."""
        shared = VolumeMount(kind="volume", name="shared", source="/v", destination="/v", writable=True)
        volumes = (shared,) if name in ("web", "db") else ()
        facts = container(name, 0.5, id=IDS[name], disk_bytes=7, volumes=volumes, published_ports=(80,))
        self.journal.begin(
            f"m-{name}",
            side,
            name,
            json.dumps(
                {
                    "container": facts.model_dump(mode="json"),
                    "target": "beta",
                    "method": "full",
                    "epoch": 1,
                    "leaves": leaves,
                }
            ),
        )
        return facts

    def end(self, name: str) -> None:
        """Bring its migration to an end."""
        self.finish(name, Phase.ABORTED, settled=True)

    def finish(self, name: str, phase: Phase, *, settled: bool) -> None:
        """Write how it ended."""
        told = {"source": "a", "target": "b", "method": "lazy", "phase": phase}
        outcome = MigrationOutcome.model_validate({"migration": f"m-{name}", "container": name, **told})
        self.journal.finish(outcome, settled=settled)


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    """A host on which nothing moves yet."""
    script = tmp_path / "bin/podman"
    script.parent.mkdir()
    script.write_text(PODMAN.format(python=sys.executable, names=repr(IDS)))
    script.chmod(0o755)
    monkeypatch.setenv("PODMAN_PLACE", str(tmp_path))
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    return House(tmp_path)


def test_podman_is_not_asked_about_what_moves(house: House) -> None:
    house.lock("web")
    web = house.begin("web")
    found = {item.name: item for item in house.known.running()}
    assert sorted(found) == ["db", "mail", "web"]
    assert found["web"] == web
    assert "volume-in-use" in {item.code for item in found["db"].obstacles}, "what moves uses its volume still"
    census = house.known.census()
    assert (census.names, census.ports) == (("db", "mail", "web"), (80,))
    assert set(house.known.volume_users("shared")) == {IDS["web"], IDS["db"]}
    assert house.known.one("mail").id == IDS["mail"]
    for name in ("web", IDS["web"]):
        with pytest.raises(PrerequisiteError) as refused:
            house.known.one(name)
        assert (refused.value.code, refused.value.temporary) == ("already-moving", True)


@pytest.mark.parametrize("question", [KnownContainers.running, KnownContainers.census])
def test_what_sets_out_meanwhile_is_not_waited_for(
    house: House, question: Callable[[KnownContainers], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(known, "PATIENCE_S", 0.0)
    house.lock("db")
    asking = threading.Thread(target=question, args=(house.known,))
    asking.start()
    try:
        while asking.is_alive() and not (house.place / "asked-db").exists():
            asking.join(0.01)
        house.begin("db")
        asking.join(WAIT_S)
        assert not asking.is_alive()
    finally:
        (house.place / "locked-db").unlink()
        asking.join()


def test_an_arrival_is_this_hosts_from_its_commit_on(house: House) -> None:
    house.lock("mail")
    house.begin("mail", Side.TARGET)
    assert sorted(item.name for item in house.known.running()) == ["db", "web"]
    assert "mail" in house.known.census().names, "its name is taken already"
    house.journal.decide("m-mail", Decision.COMMIT)
    assert sorted(item.name for item in house.known.running()) == ["db", "mail", "web"]
    (house.place / "locked-mail").unlink()
    house.end("mail")
    assert house.known.moving() == {}
    assert house.known.one("mail").memory_bytes != container("mail", 0.5).memory_bytes, "podman tells again"


def test_a_plan_tells_where_a_container_is_on_its_way_to_already(house: House) -> None:
    house.begin("web")
    line = under_way(house.known.moving()[IDS["web"]])
    assert (line.container, line.target, line.method) == ("web", "beta", "full")
    house.finish("web", Phase.LOST, settled=False)
    line = under_way(house.known.moving()[IDS["web"]])
    assert line.target is None
    assert "lifeboat recover" in line.reason


def test_one_of_which_a_checkpoint_is_made_is_not_on_its_way(house: House) -> None:
    house.begin("web", leaves=False)
    moving = house.known.moving()[IDS["web"]]
    assert (moving.target, moving.here) == ("", True), "a plan is for it as for any other"
    assert "web" in {item.name for item in house.known.running()}
