"""Command line of the lab: `python -m tests.lab up|shell|run|down`."""

from __future__ import annotations

import argparse
import os
import sys

from migrator.errors import LifeboatError
from tests.lab import state
from tests.lab.image import BASE
from tests.lab.lab import Lab, attach, build_layers, build_store, only_one
from tests.lab.programs import PROGRAMS


def main() -> int:
    """Run one verb; return its exit status."""
    arguments = parser().parse_args()
    try:
        return int(arguments.deed(arguments) or 0)
    except LifeboatError as error:
        print(f"lab: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("lab: interrupted; nothing is left up", file=sys.stderr)
        return 130


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(prog="run lab", description="hosts in namespaces, to play and to test with")
    result.add_argument("--name", default=os.environ.get("LIFEBOAT_LAB_NAME", "lab"), help="name of the lab")
    verbs = result.add_subparsers(required=True, metavar="VERB")
    up = verbs.add_parser("up", help="build what is missing and boot the hosts")
    up.add_argument("--hosts", type=int, default=2, help="how many (default 2)")
    up.set_defaults(deed=bring_up)
    build = verbs.add_parser("build", help="build all that labs need and the cache lacks")
    build.set_defaults(deed=build_all)
    shell = verbs.add_parser("shell", help="a shell in a host or in the client's network")
    shell.add_argument("host", help="alpha, beta, ... or client")
    shell.set_defaults(deed=open_shell, argv=["bash"])
    run = verbs.add_parser("run", help="run a program in a host or in the client's network")
    run.add_argument("host")
    run.add_argument("argv", nargs=argparse.REMAINDER, metavar="PROGRAM ...")
    run.set_defaults(deed=open_shell)
    down = verbs.add_parser("down", help="end the lab and everything a killed one has left")
    down.set_defaults(deed=take_down)
    return result


def bring_up(arguments: argparse.Namespace) -> None:
    """Bring a lab up and leave it up."""
    lab = Lab(arguments.hosts, name=arguments.name, detached=True)
    lab.up()
    for host in lab.hosts.values():
        print(f"lab: {host.name} is up at {host.address}; enter it with ./run lab shell {host.name}")


def build_all(_: argparse.Namespace) -> None:
    """Build everything the labs of the demo and of the tests are made of."""
    layers = build_layers()
    for images in ([BASE], [PROGRAMS]):
        build_store(layers[-1], images)


def open_shell(arguments: argparse.Namespace) -> None:
    """Become a program in a host."""
    lab = attach(arguments.name)
    place = lab.client if arguments.host == "client" else lab.host(arguments.host)
    argv = place.command(arguments.argv or ["bash"])
    sys.stdout.flush()
    os.execvp(argv[0], argv)  # noqa: S606 - becomes the program, there is nothing to return to


def take_down(arguments: argparse.Namespace) -> None:
    """Clear a lab, and all abandoned ones."""
    with only_one():
        state.clear(arguments.name)
        for name in state.clear_abandoned():
            print(f"lab: cleared what was left of lab {name}")
    print(f"lab: {arguments.name} is down")


if __name__ == "__main__":
    sys.exit(main())
