"""`lifeboatd`: the entry point."""

from __future__ import annotations

import argparse
import faulthandler
import logging
import os
import signal
import sys
from pathlib import Path

import watchdog
from migrator.errors import LifeboatError, PrerequisiteError
from watchdog.admin import AdminServer
from watchdog.daemon.daemon import Daemon
from watchdog.daemon.heartbeat import notify
from watchdog.daemon.places import Places
from watchdog.paths import ADMIN_SOCKET, SETTINGS
from watchdog.policy.load import load_policy, timing_of
from watchdog.settings import load_settings


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of lifeboatd's few options."""
    parser = argparse.ArgumentParser(
        prog="lifeboatd",
        description="Watch this host's hardware and evacuate its containers before the host fails.",
        epilog="Exit status: 0 stopped, 2 bad settings or policies, 3 a prerequisite is missing.",
    )
    parser.add_argument("--settings", type=Path, default=SETTINGS, metavar="FILE", help="settings to use")
    parser.add_argument("--check", action="store_true", help="say whether settings and policies are good, and stop")
    return parser


def main() -> int:
    """Run the daemon until it is told to stop; return the exit status."""
    arguments = build_parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    for noisy in ("apscheduler", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        _check_package()
        if arguments.check:
            return check(arguments.settings)
        return _serve(Daemon(load_settings(arguments.settings)))
    except LifeboatError as error:
        sys.stderr.write(f"lifeboatd: {error}\n")
        return error.exit_status


def check(settings: Path, places: Places | None = None) -> int:
    """Read settings and policies as the daemon would, and say that they are good; nothing else is opened.

    Raises `FileError` when they are not.
    """
    where = places or Places()
    policy = load_policy(where.shipped, where.local, timing_of(load_settings(settings).signals))
    sys.stdout.write(f"settings and {len(policy.rules)} rules are good\n")
    return 0


def _serve(daemon: Daemon) -> int:
    if os.geteuid() != 0:
        raise PrerequisiteError("lifeboatd must run as root", code="not-root", hint="systemctl start lifeboatd")
    faulthandler.register(signal.SIGUSR1)  # what each thread does, to the journal, also when all of them hang
    signal.signal(signal.SIGTERM, lambda *_: daemon.stop_soon())
    signal.signal(signal.SIGINT, lambda *_: daemon.stop_soon())
    signal.signal(signal.SIGHUP, lambda *_: daemon.reload_soon())
    admin = AdminServer(daemon, ADMIN_SOCKET)
    daemon.start()
    admin.start()
    notify(READY="1", STATUS="watching")
    daemon.run()
    notify(STOPPING="1")
    admin.stop()
    daemon.stop()
    return 0


def _check_package() -> None:
    """PyPI has an unrelated package that imports as `watchdog`: refuse to run on a mixture of both."""
    if not hasattr(watchdog, "LIFEBOAT"):
        raise PrerequisiteError(
            f"the package watchdog at {watchdog.__file__} is not lifeboat's",
            code="foreign-package",
            hint="install lifeboatd into a virtual environment of its own",
        )


if __name__ == "__main__":
    sys.exit(main())
