"""What CRIU of the hosts needs on a machine whose root lacks CAP_SYS_RESOURCE, as in many sandboxes.

Such a root may not read the resource limits of another user's process by prlimit(2), and CRIU dumps them.
There, and only there, the hosts' `criu` runs with a library that reads them from /proc instead.
"""

from __future__ import annotations

from pathlib import Path

from migrator import command
from migrator.errors import ExecutionError
from tests.lab.cache import cached

CAP_SYS_RESOURCE = 24  # include/uapi/linux/capability.h
SOURCE = Path(__file__).with_name("limits.c")
LIBRARY = "/usr/local/lib/lifeboat-lab-limits.so"
WRAPPER = f"""\
#!/bin/sh
LD_PRELOAD="{LIBRARY} $LD_PRELOAD" exec /usr/sbin/criu "$@"
"""
COMPILE_TIMEOUT_S = 60


def layers() -> list[Path]:
    """Return the layer that gives the hosts such a CRIU, or nothing where root has the capability."""
    if has_capability(Path("/proc/self/status").read_text()):
        return []
    recipe = SOURCE.read_text() + WRAPPER
    return [cached("limits", recipe, build, keep=1) / "files"]


def has_capability(status: str) -> bool:
    """Say whether CAP_SYS_RESOURCE is among the effective capabilities of a /proc/PID/status."""
    line = next(line for line in status.splitlines() if line.startswith("CapEff:"))
    return bool(int(line.split()[1], 16) >> CAP_SYS_RESOURCE & 1)


def build(target: Path) -> None:
    """Compile the library for the layer's `files`."""
    library, wrapper = target / f"files{LIBRARY}", target / "files/usr/local/sbin/criu"
    for file in (library, wrapper):
        file.parent.mkdir(parents=True)
    argv = ["cc", "-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-o", str(library), str(SOURCE)]
    result = command.run(argv, timeout_s=COMPILE_TIMEOUT_S, check=False)
    if result.status != 0:
        raise ExecutionError(
            f"{SOURCE.name} cannot be compiled: {result.reason}",
            code="lab-limits",
            hint="apt-get install gcc libc6-dev",
        )
    wrapper.write_text(WRAPPER)
    wrapper.chmod(0o755)
