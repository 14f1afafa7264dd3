"""`./run soak fleet`: a host of twenty containers is emptied while something else goes wrong.

second   another host's disk fails in the middle: it takes nothing more and empties itself, too
target   a target is killed in the middle, as by a power cut: what was not there yet goes elsewhere
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from tests.lab.fleet import SELDOM_S, Fleet, mixed_boxes
from tests.lab.host import Host
from tests.lab.lab import Lab

MIDDLE = 5  # containers that have left when the second thing goes wrong
LIMIT_S = 900.0


def main(argv: Sequence[str]) -> int:
    """Run the scenes; return 1 when one went wrong."""
    parser = argparse.ArgumentParser(prog="./run soak fleet", description=__doc__)
    parser.add_argument("--only", choices=tuple(SCENES), help="one scene (default: all)")
    parser.add_argument("--containers", type=int, default=20, metavar="N")
    arguments = parser.parse_args(argv)
    wrong = []
    for name in (arguments.only,) if arguments.only else SCENES:
        with Lab(5, name="soak-fleet") as lab:
            fleet = Fleet(lab)
            fleet.fill(lab.host("alpha"), mixed_boxes(arguments.containers))
            found = SCENES[name](fleet)
        print(f"{name}: {'; '.join(found) or 'as it should be'}", flush=True)
        wrong += found
    return 1 if wrong else 0


def away(fleet: Fleet, since: float = 0.0) -> list[dict[str, Any]]:
    """Return the migrations away from alpha that have ended, of those begun since then (Unix seconds)."""
    history = fleet.lifeboat(fleet.lab.host("alpha"), "history", "--limit", "200")
    ours = [item for item in history if item["source"] == "alpha"]
    return [item for item in ours if item["phases"][0]["began_at"] > since]


def left(fleet: Fleet, since: float = 0.0) -> list[dict[str, Any]]:
    """Return those of them that are done."""
    return [item for item in away(fleet, since) if item["phase"] == "done"]


def begin(fleet: Fleet) -> None:
    """Let alpha fail, and wait until it is half empty."""
    fleet.break_disk(fleet.lab.host("alpha"))
    fleet.wait("the first to leave", lambda: len(left(fleet)) >= MIDDLE, LIMIT_S, SELDOM_S)


def second_host_fails(fleet: Fleet) -> list[str]:
    """Beta fails, too: everything ends on the three others, undisturbed, and alpha sends beta nothing more."""
    alpha, beta = fleet.lab.host("alpha"), fleet.lab.host("beta")
    begin(fleet)
    fleet.break_disk(beta)
    fleet.wait("beta's verdict", lambda: fleet.lifeboat(beta, "status")["verdict"] == "failing", 60)
    judged_at = time.time()
    for host in (alpha, beta):
        fleet.wait(f"{host.name} to be empty", partial(is_empty, fleet, host), LIMIT_S, SELDOM_S)
    wrong = fleet.harms()
    for item in fleet.lifeboat(alpha, "history"):
        frozen = [phase["began_at"] for phase in item["phases"] if phase["phase"] == "freeze"]
        proposed_late = item["phases"][0]["began_at"] > judged_at + 1
        if item["target"] == "beta" and item["phase"] == "done" and frozen and proposed_late:
            wrong.append(f"{item['container']} went to beta after its verdict")
    return wrong


def is_empty(fleet: Fleet, host: Host) -> bool:
    """Say whether nothing is left to move from a host, nor on its way there."""
    return fleet.state(host) == "evacuated" and not fleet.plan(host)["migrations"]


def target_dies(fleet: Fleet) -> list[str]:
    """Gamma is killed: what had been committed to it is gone with it, all else is elsewhere and undisturbed."""
    alpha, gamma = fleet.lab.host("alpha"), fleet.lab.host("gamma")
    begin(fleet)
    gamma.kill()
    fleet.wait("the evacuation", lambda: fleet.state(alpha) == "evacuated", LIMIT_S, SELDOM_S)
    history = fleet.lifeboat(alpha, "history")
    committed = {item["container"] for item in history if item["target"] == "gamma" and item["phase"] != "aborted"}
    wrong = fleet.harms([box for box in fleet.boxes if box.name not in committed])
    done = {item["container"] for item in history if item["phase"] == "done"}
    wrong += [f"{box.name} was not moved" for box in fleet.boxes if box.name not in done | committed]
    print(f"target: {len(committed)} had been committed to gamma, {len(done - committed)} others are elsewhere")
    return wrong


SCENES: dict[str, Callable[[Fleet], list[str]]] = {"second": second_host_fails, "target": target_dies}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
