"""`./run soak twenty`: five hosts, twenty containers of mixed kinds; the first host fails and is emptied.

Prints each migration, and what the plans said against what happened: the one before the first migration, and one
in the middle. With `--drill` there is a fire drill of everything before, from which the first plan knows rates;
without it knows none. With `--etcd` the hosts also tell a cluster of etcd, and one of its three members is killed
in the middle. Too much for two processors to be part of every run of the tests.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from typing import Any

from tests.lab.fleet import SELDOM_S, SETTINGS, Fleet, mixed_boxes
from tests.lab.lab import Lab
from tests.lab.members import Members
from tests.soak.fleet import LIMIT_S, MIDDLE, away, left

ETCD_PORT = 2379


def main(argv: Sequence[str]) -> int:
    """Run; return 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="./run soak twenty", description=__doc__)
    parser.add_argument("--containers", type=int, default=20, metavar="N")
    parser.add_argument("--etcd", action="store_true", help="with a cluster of etcd, one member of which dies")
    parser.add_argument("--drill", action="store_true", help="with a drill of everything before")
    arguments = parser.parse_args(argv)
    with Lab(5, name="soak-twenty") as lab:
        members = Members([(lab.host(name), ETCD_PORT) for name in ("beta", "gamma", "delta")])
        if arguments.etcd:
            members.start()
        fleet = Fleet(lab, SETTINGS + (members.settings if arguments.etcd else ""))
        fleet.fill(lab.host("alpha"), mixed_boxes(arguments.containers))
        wrong = drill(fleet) if arguments.drill else []
        wrong += empty_alpha(fleet, members if arguments.etcd else None)
        members.close()
    print(f"twenty: {'; '.join(wrong) or 'as it should be'}", flush=True)
    return 1 if wrong else 0


def drill(fleet: Fleet) -> list[str]:
    """Let all containers of alpha leave and come back, and return what is wrong then."""
    told = fleet.lab.host("alpha").run(["lifeboat", "drill", "--all"], timeout_s=2 * LIMIT_S, check=False)
    print(told.output, flush=True)
    return [] if told.status == 0 else [f"the drill failed: {told.errors}"]


def empty_alpha(fleet: Fleet, members: Members | None) -> list[str]:
    """Let alpha fail, follow it to the end, and return what is wrong then."""
    alpha = fleet.lab.host("alpha")
    first, broken_at = fleet.plan(alpha), time.time()
    fleet.break_disk(alpha)
    fleet.wait("the first to leave", lambda: len(left(fleet, broken_at)) >= MIDDLE, LIMIT_S, SELDOM_S)
    if members is not None:
        members.kill(0)
    middle, middle_at = fleet.plan(alpha), time.time()
    fleet.wait("the evacuation", lambda: fleet.state(alpha) == "evacuated", LIMIT_S, SELDOM_S)
    history = away(fleet, broken_at)
    tell(fleet, first, history)
    began_at = min(item["phases"][0]["began_at"] for item in history)
    ended_at = max(ended(item) for item in history)
    compare("the plan before the first migration", first["ends_s"], ended_at - began_at)
    compare(f"the plan when {MIDDLE} had left", middle["ends_s"], ended_at - middle_at)
    wrong = [f"{item['container']}: {item['error']}" for item in history if item["phase"] != "done"]
    wrong += fleet.harms() + apart_kept(fleet) + order_kept(fleet, history)
    status = fleet.lifeboat(alpha, "status")
    wrong += [] if status["cordoned"] else ["alpha is not cordoned"]
    if members is not None and not status["registry"]["answers"]:
        wrong.append("etcd does not answer with two of three members")
    return wrong


def ended(outcome: dict[str, Any]) -> float:
    """Return when a migration ended (Unix seconds)."""
    last = outcome["phases"][-1]
    return float(last["began_at"] + last["duration_s"])


def tell(fleet: Fleet, plan: dict[str, Any], history: Sequence[dict[str, Any]]) -> None:
    """Print what was planned and what was."""
    planned = {item["container"]: item for item in plan["migrations"]}
    began_at = min(item["phases"][0]["began_at"] for item in history)
    priorities = {box.name: box.labels["lifeboat.priority"] for box in fleet.boxes}
    for item in sorted(history, key=ended):
        name, freeze_ms = item["container"], item["freeze_ms"] or 0
        times = f"planned {planned[name]['ends_s']:5.1f} s, ended {ended(item) - began_at:5.1f} s"
        waits = f"waited {item['waited_s']:4.1f} s, parked in {item['parked_s']:4.1f} s, frozen {freeze_ms:5.0f} ms"
        print(f"{name} {priorities[name]} {item['method']:4} {item['target']:7} {times}, {waits} {item['error']}")
        print("      " + ", ".join(f"{phase['phase']} {phase['duration_s']:.1f}" for phase in item["phases"]))


def compare(what: str, planned_s: float, took_s: float) -> None:
    """Print how far a plan was off; a figure of this machine, not a condition."""
    print(f"{what}: {planned_s:.0f} s, it took {took_s:.0f} s ({100 * (planned_s - took_s) / took_s:+.0f} %)")


def apart_kept(fleet: Fleet) -> list[str]:
    """Return what is wrong with the containers that are to be kept apart; there is a host for each of four."""
    places = fleet.places()
    apart = [host for box in fleet.boxes if "lifeboat.apart" in box.labels for host in places[box.name]]
    return [] if len(set(apart)) == min(len(apart), 4) else [f"lifeboat.apart was not kept: {apart}"]


def order_kept(fleet: Fleet, history: Sequence[dict[str, Any]]) -> list[str]:
    """Return what is wrong with the order in which the containers left."""
    priorities = {box.name: int(box.labels["lifeboat.priority"]) for box in fleet.boxes}
    began = [item["container"] for item in sorted(history, key=lambda item: item["phases"][0]["began_at"])]
    order = [priorities[name] for name in dict.fromkeys(began)]
    return [] if order == sorted(order, reverse=True) else [f"they left in the order {began}"]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
