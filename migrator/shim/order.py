"""What a shim is told to do: `order.json` in the migration's directory, and the files podman needs for it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from migrator.errors import PrerequisiteError
from migrator.model import Method, Value
from migrator.network.gate import shut_rules
from migrator.protocol.journal import Side
from migrator.runtime.tombstone import ALLOWED
from migrator.settings import MigratorSettings

ORDER = "order.json"
CONTROL = "shim.sock"
RESTORED = "restored.json"  # what the target's shim knows of the tree that it has restored
HANDED_OVER = "handed-over"  # that it is podman's now
HELPER_DIRECTORIES = (
    "/usr/local/libexec/podman",
    "/usr/local/lib/podman",
    "/usr/libexec/podman",
    "/usr/lib/podman",
)
"""Where podman looks for its helpers by itself (containers-common, config.defaultHelperBinariesDir)."""

MONITOR_DIRECTORIES = (*HELPER_DIRECTORIES, "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin")
"""Where podman looks for its monitor by itself (containers-common, defaultConfig, ConmonPath)."""


class PagerAddress(Value):
    """Where the page sink of the target waits for the source."""

    host: str
    address: str
    port: int
    secret: str  # what a caller must name
    addresses: tuple[str, ...] = ()  # where else the same sink listens, for links side by side
    plain: bool = False  # whether links are not encrypted


class Order(Value):
    """One shim's order; `container` is podman's full id."""

    migration: str
    side: Side
    method: Method
    container: str
    journal: str
    runc: str
    pki: str
    settings: MigratorSettings
    pager: PagerAddress | None = None
    addresses: tuple[str, ...] = ()  # all of the container's, without prefix length
    left_behind: tuple[str, ...] = ()  # addresses whose connections end here
    in_pod: bool = False  # it shares its network with others, which move along
    shared_memory: str = ""  # of its pod, on this host; empty when it has one of its own
    captain: bool = True  # of its pod, or alone: what is done once for all that share a network is its to do


def write_order(directory: Path, order: Order) -> Path:
    """Write everything one parked podman needs; return the file for `CONTAINERS_CONF_OVERRIDE`."""
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    (directory / ORDER).write_text(order.model_dump_json())
    script = _write_runtime(directory, order)
    configuration = directory / "containers.conf"
    text = f'[engine.runtimes]\nrunc = ["{script}"]\n'
    if order.side is Side.TARGET:
        text = _silent(directory, loopback=not order.in_pod) + text
    configuration.write_text(text)
    return configuration


def write_silence(directory: Path, *, loopback: bool) -> Path:
    """Write what podman needs to start a container silent; return the file for `CONTAINERS_CONF_OVERRIDE`."""
    configuration = directory / "containers.conf"
    configuration.write_text(_silent(directory, loopback=loopback))
    return configuration


def _silent(directory: Path, *, loopback: bool) -> str:
    helpers, monitor = _write_gate_helper(directory, loopback=loopback), _write_monitor(directory)
    listed = ", ".join(f'"{path}"' for path in (helpers, *HELPER_DIRECTORIES))
    return f'[engine]\nhelper_binaries_dir = [{listed}]\nconmon_path = ["{monitor}"]\n'


def read_order(directory: Path) -> Order:
    """Read the order a daemon wrote."""
    return Order.model_validate_json((directory / ORDER).read_text())


def real_runc() -> str:
    """Return the path of the host's runc; raises `PrerequisiteError` when there is none."""
    found = shutil.which("runc")
    if not found:
        raise PrerequisiteError("runc is not installed", code="runc-missing", hint="apt-get install runc")
    return found


def _write_runtime(directory: Path, order: Order) -> Path:
    """Write what podman calls in runc's place: our shim for a checkpoint or a restore, runc itself for all else.

    Podman asks runc some ten times around a migration, and to start Python costs more than to ask. A shim that
    ends badly with a restored tree in its hands is started again, to take it up; one that had handed it over has
    ended well. Podman also asks what runc can do (`--help`, and crutils, CRRuntimeSupportsPodCheckpointRestore).
    """
    script = directory / "runc"
    shim = shlex.join([sys.executable, "-P", "-m", "migrator.shim", str(directory)])
    handed_over, restored, allowed = (
        shlex.quote(str(path))
        for path in (directory / HANDED_OVER, directory / RESTORED, ALLOWED / order.container)
    )
    lines = [
        "#!/bin/sh",
        "finish() {",
        f"    rm -f {allowed}",
        '    [ "$1" = 0 ] || echo "lifeboat: the restore has failed" >&2',  # or its monitor waits for a last word
        '    exit "$1"',
        "}",
        "restore() {",
        "    for attempt in 1 2 3; do",
        f'        {shim} "$@" && finish 0',
        "        status=$?",
        f"        [ ! -e {handed_over} ] || finish 0",
        f"        [ -e {restored} ] || break",
        "    done",
        "    finish $status",
        "}",
        'case " $* " in *" --help "*|" restore --lsm-mount-context ") ;; *) for word in "$@"; do',
        "    case $word in",
        f'        checkpoint) exec {shim} "$@" ;;',
        "        restore) trap '' TERM; restore \"$@\" ;;",
        "    esac",
        "done ;; esac",
        f'exec {shlex.quote(order.runc)} "$@"',
    ]
    _write_script(script, "\n".join(lines) + "\n")
    return script


def _write_gate_helper(directory: Path, *, loopback: bool) -> Path:
    """Wrap podman's network helper so that the gate is shut before it creates an interface.

    Podman calls `netavark ... setup NAMESPACE` with the namespace's path as the last argument.
    """
    netavark = _find("netavark", HELPER_DIRECTORIES)
    helpers = directory / "helpers"
    helpers.mkdir(exist_ok=True, mode=0o700)
    rules = directory / "gate.nft"
    rules.write_text(shut_rules(loopback=loopback))
    lines = [
        "#!/bin/sh",
        'for last in "$@"; do :; done',
        'case " $* " in *" setup "*)',
        f'    nsenter --net="$last" nft -f {shlex.quote(str(rules))} || exit 1 ;;',
        "esac",
        f'exec {shlex.quote(netavark)} "$@"',
    ]
    _write_script(helpers / "netavark", "\n".join(lines) + "\n")
    return helpers


def _write_monitor(directory: Path) -> Path:
    """Wrap podman's monitor so that it knows nothing of what podman is told for this one restore.

    When the container ends, perhaps in a year, the monitor calls podman with its own environment: to clean up, and
    to restart the container as its policy says. With our file in it that podman fails, for the file is gone; as
    long as it is there, the restarted container would stand behind a gate that nobody opens.
    """
    script = directory / "conmon"
    lines = ["#!/bin/sh", "unset CONTAINERS_CONF_OVERRIDE", f'exec {_find("conmon", MONITOR_DIRECTORIES)} "$@"']
    _write_script(script, "\n".join(lines) + "\n")
    return script


def _find(name: str, directories: Sequence[str]) -> str:
    """Return the path of one of podman's own programs."""
    for directory in directories:
        path = Path(directory) / name
        if os.access(path, os.X_OK):
            return str(path)
    raise PrerequisiteError(
        f"podman's {name} is not installed", code=f"{name}-missing", hint=f"lifeboat needs podman with {name}"
    )


def _write_script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o700)
