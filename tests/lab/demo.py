"""`./run demo`: the main job on real parts, shown as it happens, with a verdict at the end.

Exit status 0 only if the container moved to the other host, the client's one connection was never reset,
every page of its memory is right, the process was never restarted and the alert was delivered.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from migrator.errors import LifeboatError
from tests.lab import admin
from tests.lab.lab import Lab
from tests.lab.scene import CONTAINER, POLL_S, Scene

NAME = "demo"
DRAIN_BYTES_PER_S = 5 << 20  # below the slowest drain ever seen; only to know when to give up
DISK_RULE = "disk-health-failed"

console = Console(highlight=False)


def main() -> int:
    """Play the demo; return its exit status."""
    arguments = parser().parse_args()
    lab = Lab(2, name=NAME, detached=arguments.keep)
    try:
        with tempfile.TemporaryDirectory(prefix="lifeboat-demo-") as directory:
            result = play(lab, Path(directory), arguments)
    except LifeboatError as error:
        console.print(f"[red]demo failed:[/] {error}")
        return 1
    except KeyboardInterrupt:
        console.print("interrupted; everything is taken down")
        return 130
    finally:
        if not arguments.keep:
            lab.down()
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if result["passed"] else 1


def parser() -> argparse.ArgumentParser:
    """Return the demo's options."""
    result = argparse.ArgumentParser(prog="run demo", description=(__doc__ or "").split("\n\n")[1])
    result.add_argument("--memory", type=int, default=512, metavar="MIB", help="memory of the container (512)")
    result.add_argument("--method", choices=["lazy", "full"], default="lazy", help="how it is moved (lazy)")
    result.add_argument("--json", type=Path, metavar="FILE", help="write the result as data, too")
    result.add_argument("--keep", action="store_true", help="leave the lab up; ./run lab --name demo down ends it")
    return result


def play(lab: Lab, directory: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Play everything and return the result."""
    say("building and booting two hosts, alpha and beta, with systemd, podman, runc and CRIU")
    lab.up()
    scene = Scene(lab, directory)
    try:
        say("installing lifeboatd on both, making them one cluster")
        scene.start_daemons(arguments.method)
        say(f"starting a container on alpha that keeps checking {arguments.memory} MiB of memory")
        scene.start_container(arguments.memory)
        scene.start_client()
        say("a client holds one TCP connection to it and asks something every 5 ms")
        say("[bold]a disk of alpha goes bad[/]")
        broken_at = time.time()
        scene.break_disk()
        follow(scene, arguments.memory)
        return conclude(scene, broken_at)
    finally:
        scene.close()


def follow(scene: Scene, memory_mib: int) -> None:
    """Show what lifeboatd does until the evacuation has ended."""
    shown = ""
    told_at = 0.0
    deadline = time.monotonic() + 120 + (memory_mib << 20) / DRAIN_BYTES_PER_S
    while time.monotonic() < deadline:
        status = admin.status(scene.source)
        if status["sentence"] != shown:
            shown = status["sentence"]
            say(f"lifeboatd: {shown}")
        if status["state"] == "evacuated":
            return
        if status["state"] == "evacuating" and time.monotonic() - told_at > 5:
            told_at = time.monotonic()
            seen = scene.client_report()
            stall, answers = seen.get("longest_stall_ms", 0.0), seen.get("answers", 0)
            say(f"  the client has {answers} answers, its longest wait was {stall:.0f} ms")
        time.sleep(0.5)
    raise LifeboatError("the evacuation does not end", code="demo-timeout")


def conclude(scene: Scene, broken_at: float) -> dict[str, Any]:
    """Look at everything from outside, show it, and judge."""
    outcome: dict[str, Any] = next(iter(scene.lifeboat(scene.source, "history")), {})
    scene.wait("the last alert", lambda: has_event(scene, "evacuation-ended"), 30)
    client = scene.end_client()
    verified = scene.ask("verify") or {}
    where = scene.running_on()
    result = {
        "freeze_ms": outcome.get("freeze_ms"),
        "client_longest_stall_ms": round(client.get("longest_stall_ms", 0.0), 1),
        "drain_s": outcome.get("drain_s"),
        "drain_mb_per_s": drain_rate(outcome),
        "requests": client.get("requests", 0),
        "answers": client.get("answers", 0),
        "connection_survived": bool(client.get("connected")) and not client.get("resets"),
        "process_survived": len(client.get("boots", [])) == 1 and verified.get("boot") in client.get("boots", []),
        "memory_verified": verified.get("wrong_now") == 0 and verified.get("wrong") == 0,
        "pages_verified": verified.get("verified", 0),
        "webhook_delivered": has_event(scene, "verdict-changed") and has_event(scene, "migration-ended"),
        "container_on": where[0] if len(where) == 1 else where,
        "method": outcome.get("method"),
        "phases": phases(scene, outcome, broken_at),
    }
    held = ("connection_survived", "process_survived", "memory_verified", "webhook_delivered")
    result["passed"] = all(result[name] for name in held) and where == ["beta"] and outcome["phase"] == "done"
    show(scene, result, broken_at)
    return result


def phases(scene: Scene, outcome: dict[str, Any], broken_at: float) -> list[dict[str, Any]]:
    """Return the whole timeline: each step with its beginning (Unix seconds) and its length."""
    rules = scene.lifeboat(scene.source, "policy", "explain")
    seen = min((row["since"] for row in rules if row["rule"] == DISK_RULE and row["since"]), default=broken_at)
    verdicts = [event["at"] for event in scene.events() if event["kind"] == "verdict-changed"]
    judged = min((at for at in verdicts if at >= broken_at), default=seen)
    first = [
        {"phase": "signal read", "at": seen, "ms": round((judged - seen) * 1000, 1)},
        {"phase": "verdict", "at": judged, "ms": 0.0},
    ]
    return first + [
        {"phase": item["phase"], "at": item["began_at"], "ms": round(item["duration_s"] * 1000, 1)}
        for item in outcome.get("phases", ())
    ]


def drain_rate(outcome: dict[str, Any]) -> float | None:
    """Return the drain's speed in 10^6 bytes per second, None when there was none."""
    if not outcome.get("drain_s") or not outcome.get("drained_bytes"):
        return None
    return round(float(outcome["drained_bytes"]) / float(outcome["drain_s"]) / 1e6, 1)


def has_event(scene: Scene, kind: str) -> bool:
    """Say whether the receiver got an alert of this kind."""
    return any(event["kind"] == kind for event in scene.events())


def show(scene: Scene, result: dict[str, Any], broken_at: float) -> None:
    """Print the timeline, the figures and the hosts."""
    timeline = Table(title="timeline", title_justify="left", box=None)
    for column in ("", "after the disk went bad", "took"):
        timeline.add_column(column, justify="left" if not column else "right")
    for item in result["phases"]:
        timeline.add_row(item["phase"], f"{item['at'] - broken_at:9.3f} s", f"{item['ms']:9.1f} ms")
    console.print(timeline)
    for name in ("freeze_ms", "client_longest_stall_ms", "drain_s", "drain_mb_per_s", "requests", "answers"):
        value = result[name]
        console.print(f"  {name:<24} {value:.1f}" if isinstance(value, float) else f"  {name:<24} {value}")
    for name in ("connection_survived", "process_survived", "memory_verified", "webhook_delivered"):
        console.print(f"  {name:<24} {'[green]yes[/]' if result[name] else '[red]NO[/]'}")
    console.print(f"  alerts: {', '.join(event['kind'] for event in scene.events())}")
    for host in scene.lab.hosts.values():
        console.print(f"[bold]{host.name}$ podman ps[/]")
        console.print(host.run(["podman", "ps", "--all"]).output.rstrip(), markup=False)
    verdict = "[bold green]passed[/]" if result["passed"] else "[bold red]FAILED[/]"
    console.print(
        f"demo {verdict}: {CONTAINER} runs on {result['container_on']}; disks were read every {POLL_S:g} s"
    )


def say(text: str) -> None:
    """Show one line of progress."""
    console.print(f"[dim]{time.strftime('%H:%M:%S')}[/] {text}")


if __name__ == "__main__":
    sys.exit(main())
