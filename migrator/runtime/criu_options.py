"""Options for the CRIU that runc calls, given without touching the host's own configuration.

runc hands CRIU the file /etc/criu/runc.conf, whose options win over runc's (criu.org/Configuration_files).
Our programs see that directory with our options added, in a mount namespace of their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

CONFIGURATION = Path("/etc/criu")
FILE = "runc.conf"

OPTIONS = """\
# Our gate keeps the container silent; CRIU's own lock costs iptables 60 ms at the end of the restore.
network-lock skip
# runc asks for every line: 20,000 of them for 4 GiB, while the container stands still.
verbosity {verbosity}
"""

INSIDE = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


def with_options(
    argv: Sequence[str], directory: Path, verbosity: int, environment: Mapping[str, str] | None = None
) -> list[str]:
    """Return a command that runs `argv` so that CRIU below it gets our options.

    `directory` takes the changed copy of the host's CRIU configuration; `verbosity` is CRIU's, 1 (errors)
    to 4 (everything); `environment` is added to what `argv` inherits.
    """
    changed = directory / "criu"
    CONFIGURATION.mkdir(exist_ok=True)  # something to mount on
    shutil.copytree(CONFIGURATION, changed, dirs_exist_ok=True)
    with (changed / FILE).open("a") as file:
        file.write("\n" + OPTIONS.format(verbosity=verbosity))
    enter = ["unshare", "--mount", "--propagation", "slave"]
    variables = [f"{name}={value}" for name, value in (environment or {}).items()]
    return [*enter, "sh", "-c", INSIDE, "sh", str(changed), str(CONFIGURATION), "env", *variables, *argv]
