"""`./run soak pager`: the source is lost at a random moment of many drains; nobody may run on missing pages.

The drains are those of `tests.lab.drain`, below podman: real page source and sink, real userfaultfd, two hosts.
Between two losses a storm of changing mappings is drained to its end. Seeded: what went wrong can be had again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from tests.lab.drain import Drain, lose_source, prepare, regions
from tests.lab.lab import Lab

STORM_EVERY = 20  # losses


def main(argv: Sequence[str]) -> int:
    """Run; return 1 when anything was wrong."""
    parser = argparse.ArgumentParser(prog="./run soak pager", description=__doc__)
    parser.add_argument("--drains", type=int, default=200, metavar="N")
    parser.add_argument("--seed", type=int, default=1, help="of the first drain; each next one has the next")
    arguments = parser.parse_args(argv)
    wrong = 0
    began = time.monotonic()
    with Lab(2, name="soak-pager") as lab:
        prepare(lab)
        for seed in range(arguments.seed, arguments.seed + arguments.drains):
            loss = lose_source(lab, seed)
            wrong += bool(loss.wrong)
            share = 100 * loss.arrived_bytes // loss.of_bytes
            print(f"loss {seed}: at {share} %: {loss.wrong or 'frozen, no byte wrong, dead'}", flush=True)
            if seed % STORM_EVERY == 0:
                wrong += storm(lab, seed)
    print(f"{arguments.drains} losses, {wrong} wrong, {time.monotonic() - began:.0f} s")
    return 1 if wrong else 0


def storm(lab: Lab, seed: int) -> int:
    """Drain a tree that changes its mappings all the time; return how many pages were wrong."""
    with Drain(lab, regions(64), {"pager_limit_mib_s": 24.0}) as drain:
        drain.say(f"storm {seed} 4")
        drain.go()
        told = drain.wait()
        found = drain.hear()
    print(f"storm {seed}: {told['event']}, {found}", flush=True)
    wrong: int = found["wrong"] + (told["event"] != "drained")
    return wrong
