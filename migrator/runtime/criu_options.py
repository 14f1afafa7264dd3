"""Options for the CRIU that runc calls, given without touching the host's own configuration.

runc hands CRIU the file /etc/criu/runc.conf, whose options win over runc's (criu.org/Configuration_files).
Our programs see that directory with our options added, in a mount namespace of their own.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from migrator.container.processes import GHOST_LIMIT_BYTES

CONFIGURATION = Path("/etc/criu")
FILE = "runc.conf"

OPTIONS = """\
# Our gate keeps the container silent; CRIU's own lock costs iptables 60 ms at the end of the restore.
network-lock skip
# runc asks for every line: 20,000 of them for 4 GiB, while the container stands still.
verbosity {verbosity}
# A file that is open and has no name travels in the images; CRIU's own limit is 1 MiB.
ghost-limit {ghost_limit}
"""

INSIDE = 'mount --bind "$1" "$2" && shift 2 && exec "$@"'


def with_options(
    argv: Sequence[str],
    directory: Path,
    verbosity: int,
    environment: Mapping[str, str] | None = None,
    watched: Sequence[str] = (),
    *,
    cgroup: str = "",
) -> list[str]:
    """Return a command that runs `argv` so that CRIU below it gets our options.

    `directory` takes the changed copy of the host's CRIU configuration; `verbosity` is CRIU's, 1 (errors)
    to 4 (everything); `environment` is added to what `argv` inherits; `watched` are paths in the container on which
    CRIU will find watches; `cgroup` is where it restores what was in another one (of version 2, which has no name).
    """
    changed = directory / "criu"
    CONFIGURATION.mkdir(exist_ok=True)  # something to mount on
    shutil.copytree(CONFIGURATION, changed, dirs_exist_ok=True)
    with (changed / FILE).open("a") as file:
        file.write("\n" + OPTIONS.format(verbosity=verbosity, ghost_limit=GHOST_LIMIT_BYTES))
        file.writelines(f'irmap-scan-path "{path}"\n' for path in watched if '"' not in path and "\n" not in path)
        file.write(f"cgroup-root :{cgroup}\n" if cgroup else "")
    enter = ["unshare", "--mount", "--propagation", "slave"]
    variables = [f"{name}={value}" for name, value in (environment or {}).items()]
    return [*enter, "sh", "-c", INSIDE, "sh", str(changed), str(CONFIGURATION), "env", *variables, *argv]
