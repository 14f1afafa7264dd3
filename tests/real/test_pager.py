"""The pager on real memory and real links, below podman: never a wrong byte, whatever process or network do."""

from __future__ import annotations

from typing import Any

import pytest

from migrator.command import kill_group
from tests.lab.drain import Drain, lose_source, prepare, regions
from tests.lab.lab import Lab

pytestmark = pytest.mark.real


@pytest.fixture
def hosts(lab: Lab) -> Lab:
    """Two hosts that trust each other."""
    prepare(lab)
    return lab


WAYS: dict[str, dict[str, Any]] = {
    "tls": {},
    "python": {"env": {"LIFEBOAT_PURE_PYTHON": "1"}, "pager_links": 1},
    "plain": {"plain": True},
    "compressed": {"pager_compression": "on"},
    "limited": {"pager_limit_mib_s": 64.0},
    "two-addresses": {"addresses": ["10.77.0.2", "fd77::2"]},
}


def test_every_page_arrives_in_every_way(hosts: Lab) -> None:
    for way, settings in WAYS.items():
        with Drain(hosts, regions(64, 3, 1), settings) as drain:
            drain.go()
            told = drain.wait()
            assert told["event"] == "drained", (way, told["reason"])
            assert told["drained_bytes"] == 68 << 20, way
            drain.say("verify")
            assert drain.hear() == {"pages": 68 << 8, "wrong": 0}, way
            assert told["details"]["wire_bytes"] < 1.1 * told["drained_bytes"], way


def test_a_process_that_changes_its_mappings_all_the_time(hosts: Lab) -> None:
    for way in ("tls", "python"):
        settings = WAYS[way] | {"pager_limit_mib_s": 24.0}  # so the storm meets missing pages
        with Drain(hosts, regions(64, 8), settings) as drain:
            drain.say("storm 1 4")
            drain.go()
            told = drain.wait()
            assert told["event"] == "drained", told["reason"]
            found = drain.hear()
            assert found["wrong"] == 0, (way, found)
            assert set(found["done"]) == {"look", "write", "move", "fork", "unmap", "give_back"}
            assert told["details"]["faults"] > 100


def test_a_lost_source_never_gives_zeros(hosts: Lab) -> None:
    losses = [lose_source(hosts, seed) for seed in range(4)]
    assert [loss.wrong for loss in losses] == [""] * 4, losses


def test_memory_of_a_killed_process_is_lost_and_never_zeros(hosts: Lab) -> None:
    """The page source lives on, and what it reads for must not be taken for memory that holds nothing."""
    for way in ("tls", "python"):
        settings = WAYS[way] | {"pager_limit_mib_s": 16.0, "reconnect_limit_s": 2.0}
        with Drain(hosts, regions(64), settings) as drain:
            drain.go()
            while drain.tell_sink({"do": "progress"})["drained_bytes"] < 8 << 20:
                pass
            kill_group(drain.programs["owner"])
            told = drain.wait(20)
            assert told["event"] == "lost", (way, told)
            assert 8 << 20 <= told["drained_bytes"] < 64 << 20, way
            assert told["details"]["zero_bytes"] < told["drained_bytes"] / 10, way  # some are zeros at home


def test_a_cut_of_ten_seconds_resumes(hosts: Lab) -> None:
    with Drain(hosts, regions(64), {"pager_limit_mib_s": 16.0}) as drain:
        drain.go()
        while drain.tell_sink({"do": "progress"})["drained_bytes"] < 8 << 20:
            pass
        hosts.cut("alpha", "beta")
        try:
            drain.beta.run(["sleep", "10"])
        finally:
            hosts.heal()
        told = drain.wait()
        assert told["event"] == "drained", told["reason"]
        drain.say("verify")
        assert drain.hear() == {"pages": 64 << 8, "wrong": 0}
