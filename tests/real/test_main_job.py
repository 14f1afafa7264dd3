"""The main job on real parts: it moves, nobody notices; and when it cannot, nobody notices that either."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from migrator.command import CommandResult
from migrator.errors import CommandError
from tests.lab import admin
from tests.lab.host import Host
from tests.lab.lab import Lab
from tests.lab.scene import ADDRESS, CONTAINER, Scene

pytestmark = pytest.mark.real

MEMORY_MIB = 96


@pytest.fixture
def scene(lab: Lab, tmp_path: Path) -> Iterator[Scene]:
    """Both daemons run, the container serves, the client watches."""
    found = Scene(lab, tmp_path)
    try:
        found.start_daemons("lazy")
        found.start_container(MEMORY_MIB)
        found.start_client()
        yield found
    finally:
        found.close()


def migrate(scene: Scene, *options: str) -> CommandResult:
    """Run `lifeboat migrate` on alpha."""
    argv = ["lifeboat", "migrate", CONTAINER, "--to", "beta", *options]
    return scene.source.run(argv, timeout_s=180, check=False)


def check_undisturbed(scene: Scene, host: str) -> dict[str, Any]:
    """The one connection never broke, the process is the first one, its memory is right, and it runs here only."""
    more = scene.client_report()["answers"] + 50
    scene.wait("the client to go on", lambda: scene.client_report()["answers"] > more, 30)
    seen = scene.end_client()
    verified = scene.ask("verify")
    assert verified is not None
    assert seen["connected"], seen["error"]
    assert seen["resets"] == 0
    assert seen["boots"] == [verified["boot"]]
    assert (verified["wrong_now"], verified["wrong"]) == (0, 0)
    assert scene.running_on() == [host]
    return seen


def check_clean(host: Host) -> None:
    """Nothing of a migration is left on a host: directories, scopes, gates, parked programs."""
    assert host.run(["find", "/run/lifeboat/migrations", "-mindepth", "1"], check=False).output == ""
    # podman's monitor of a container that came stays in the scope in which podman was started
    ours = ["lifeboat-source-*", "lifeboat-sink-*"]
    if not host.run(["podman", "ps", "--quiet"]).output:
        ours.append("lifeboat-target-*")
    assert host.run(["systemctl", "list-units", "--all", "--plain", "--no-legend", *ours]).output == ""
    for namespace in host.run(["sh", "-c", "ls /run/netns 2>/dev/null || true"]).output.split():
        tables = host.run(["nsenter", f"--net=/run/netns/{namespace}", "nft", "list", "tables"]).output
        assert "lifeboat_gate" not in tables


def test_a_failing_disk_empties_the_host(scene: Scene) -> None:
    scene.break_disk()
    scene.wait("the evacuation", lambda: bool(admin.status(scene.source)["state"] == "evacuated"), 120)
    scene.wait("the alerts", lambda: any(e["kind"] == "evacuation-ended" for e in scene.events()), 30)
    check_undisturbed(scene, "beta")
    for host in (scene.source, scene.target):
        check_clean(host)
    kinds = [event["kind"] for event in scene.events()]
    assert {"verdict-changed", "evacuation-started", "migration-ended"} <= set(kinds)
    assert len({event["id"] for event in scene.events()}) == len(kinds)
    verdict = next(event for event in scene.events() if event["kind"] == "verdict-changed")
    assert verdict["severity"] == "critical"
    assert verdict["signals"]
    assert scene.source.run(["podman", "ps", "--all", "--quiet"]).output == ""
    assert f'"target": "{scene.target.name}"' in scene.source.read(f"/var/lib/lifeboat/tombstones/{CONTAINER}.json")
    said = scene.source.run(["sh", "-c", "cat /var/lib/lifeboat/logs/*/shim.log"]).output
    assert "CRIU was spared" in said  # without the library all works too, but large freezes take long


@pytest.mark.parametrize("options", [("--method", "full"), ()], ids=["full", "lazy"])
def test_moves_there_and_back(scene: Scene, options: tuple[str, ...]) -> None:
    moved = migrate(scene, *options)
    assert moved.status == 0, moved.errors
    back = scene.target.run(
        ["lifeboat", "migrate", CONTAINER, "--to", "alpha", *options], timeout_s=180, check=False
    )
    assert back.status == 0, back.errors
    check_undisturbed(scene, "alpha")
    for host in (scene.source, scene.target):
        check_clean(host)


def test_crius_own_pager_can_be_chosen(scene: Scene) -> None:
    settings = scene.settings("lazy").replace("[migrator]", '[migrator]\npager = "criu"')
    scene.source.write("/etc/lifeboat/lifeboat.toml", settings)
    scene.source.run(["systemctl", "restart", "lifeboatd"])
    moved = migrate(scene)
    assert moved.status == 0, moved.errors
    check_undisturbed(scene, "beta")


def written_at(host: Host, phase: str, message: str = "") -> float:
    """Return when a host's journal was given a line (Unix seconds)."""
    script = """
import json, sqlite3
lines = sqlite3.connect("/var/lib/lifeboat/journal.db").execute("SELECT event FROM line")
print(json.dumps([json.loads(line) for line, in lines]))
"""
    events = json.loads(host.run(["python3", "-c", script]).output)
    return next(float(event["at"]) for event in events if (event["phase"], event["message"]) == (phase, message))


@pytest.mark.parametrize("method", ["lazy", "full"])
def test_a_volume_and_the_writable_layer_move_along(lab: Lab, tmp_path: Path, method: str) -> None:
    scene = Scene(lab, tmp_path)
    try:
        scene.start_daemons("lazy")
        script = "echo layer > /root/layer; echo volume > /data/volume; exec sleep 1000"
        argv = ["podman", "run", "-d", "--name", CONTAINER, "--network", "lan", "--ip", ADDRESS, "-v", "vol:/data"]
        scene.source.run([*argv, "localhost/lifeboat-base:1", "sh", "-c", script])
        written = ["podman", "exec", CONTAINER, "cat", "/root/layer", "/data/volume"]
        scene.wait("the files", lambda: scene.source.run(written, check=False).status == 0, 20)
        moved = migrate(scene, "--method", method)
        assert moved.status == 0, moved.errors
        assert scene.target.run(written).output == "layer\nvolume\n"
        on_disk = written_at(scene.target, "drain", "its files are on disk")
        assert written_at(scene.target, "drain", "all memory is here") < written_at(scene.source, "release")
        assert on_disk < written_at(scene.source, "release")
    finally:
        scene.close()


def test_a_target_that_refuses(scene: Scene) -> None:
    scene.target.run(["lifeboat", "cordon"])
    refused = migrate(scene)
    assert refused.status == 3
    assert "it is cordoned" in refused.errors
    check_undisturbed(scene, "alpha")


def test_a_target_that_lacks_the_network(scene: Scene) -> None:
    scene.target.run(["podman", "network", "rm", "lan"])
    try:
        refused = migrate(scene)
        assert refused.status == 3
        assert "no podman network lan" in refused.errors
        check_undisturbed(scene, "alpha")
    finally:
        definition = scene.source.read("/etc/containers/networks/lan.json")
        scene.target.write("/etc/containers/networks/lan.json", definition)


def test_a_target_that_lacks_the_image(scene: Scene) -> None:
    settings = scene.settings("lazy").replace("[migrator]", "[migrator]\ncopy_images = false")
    scene.source.write("/etc/lifeboat/lifeboat.toml", settings)
    scene.source.run(["systemctl", "restart", "lifeboatd"])
    image = scene.source.run(["podman", "image", "inspect", "localhost/lifeboat-base:1"]).output
    archive = scene.target.run(["sh", "-c", "podman save -o /root/base.tar localhost/lifeboat-base:1"])
    assert archive.status == 0
    scene.target.run(["podman", "image", "rm", "--all", "--force"])
    try:
        refused = migrate(scene)
        assert refused.status == 4
        assert "lacks the image" in refused.errors
        scene.source.write("/etc/lifeboat/lifeboat.toml", scene.settings("lazy"))
        scene.source.run(["systemctl", "restart", "lifeboatd"])
        sent = migrate(scene)
        assert sent.status == 0, sent.errors
        there = scene.target.run(["podman", "image", "inspect", "localhost/lifeboat-base:1"]).output
        assert json.loads(there)[0]["Id"] == json.loads(image)[0]["Id"]
        check_undisturbed(scene, "beta")
    finally:
        scene.target.run(["podman", "load", "-q", "-i", "/root/base.tar"])


def test_a_target_that_dies_before_the_commit(scene: Scene) -> None:
    """The target's runc is replaced by one that hangs in the restore; then the whole host is killed."""
    scene.target.write("/usr/local/bin/runc", HANGING_RUNC, mode=0o755)
    moving = scene.source.spawn(["lifeboat", "migrate", CONTAINER, "--to", "beta"])
    scene.wait("the restore to begin", scene.target.path("/run/hanging").exists, 60)
    scene.target.kill()
    _, errors = moving.communicate(timeout=120)
    assert moving.returncode in (4, 5), errors
    seen = check_undisturbed(scene, "alpha") if scene.target.running else undisturbed_alone(scene)
    assert seen["answers"]
    check_clean(scene.source)


def undisturbed_alone(scene: Scene) -> dict[str, Any]:
    """As `check_undisturbed`, with the other host dead."""
    more = scene.client_report()["answers"] + 50
    scene.wait("the client to go on", lambda: scene.client_report()["answers"] > more, 60)
    seen = scene.end_client()
    verified = scene.ask("verify")
    assert verified is not None
    assert (seen["resets"], seen["boots"]) == (0, [verified["boot"]])
    assert (verified["wrong_now"], verified["wrong"]) == (0, 0)
    return seen


def test_a_restore_that_fails(scene: Scene) -> None:
    scene.target.write("/usr/local/bin/runc", FAILING_RUNC, mode=0o755)
    try:
        failed = migrate(scene)
        assert failed.status == 4
        assert "cannot restore" in failed.errors
        check_undisturbed(scene, "alpha")
        for host in (scene.source, scene.target):
            check_clean(host)
    finally:
        scene.target.run(["rm", "-f", "/usr/local/bin/runc"])


def test_the_daemon_may_be_killed_in_the_freeze(scene: Scene) -> None:
    """The source's daemon dies while its container is frozen: the shim gives it back by itself."""
    scene.target.write("/usr/local/bin/runc", HANGING_RUNC, mode=0o755)
    moving = scene.source.spawn(["lifeboat", "migrate", CONTAINER, "--to", "beta"])
    try:
        scene.wait("the restore to begin", scene.target.path("/run/hanging").exists, 60)
        scene.source.run(["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "lifeboatd"])
        moving.communicate(timeout=60)
        more = scene.client_report()["answers"] + 50
        scene.wait("the client to go on", lambda: scene.client_report()["answers"] > more, 30)
        scene.wait("the recovery", lambda: last_phase(scene) == "aborted", 60)
    finally:
        scene.target.run(["rm", "-f", "/usr/local/bin/runc"])
        scene.target.run(["sh", "-c", "kill -KILL $(cat /run/hanging)"], check=False)  # podman ps waits for it
    seen = check_undisturbed(scene, "alpha")
    assert seen["longest_stall_ms"] < 20_000


@pytest.mark.parametrize("dying", [("alpha", "beta")], ids="+".join)
def test_daemons_may_be_killed_in_the_drain(lab: Lab, tmp_path: Path, dying: tuple[str, ...]) -> None:
    """Pagers and shims go on without them; started again, the daemons bring the migration to its end."""
    scene = Scene(lab, tmp_path)
    try:
        scene.start_daemons("lazy")
        scene.start_container(512)
        scene.start_client()
        moving = scene.source.spawn(["lifeboat", "migrate", CONTAINER, "--to", "beta"])
        assert moving.stdout is not None
        assert any(b" drain " in line for line in moving.stdout), "the drain was not seen"
        for name in dying:
            argv = ["systemctl", "kill", "--signal=KILL", "--kill-whom=main", "lifeboatd"]
            (scene.source if name == "alpha" else scene.target).run(argv)
        moving.communicate(timeout=120)
        scene.wait("the end", lambda: last_phase(scene) == "done", 60)
        gone = ["podman", "container", "exists", CONTAINER]
        assert scene.source.run(gone, check=False).status == 1
        check_undisturbed(scene, "beta")
        scene.wait("the target's end", lambda: last_phase(scene, scene.target) == "done", 60)
        for host in (scene.source, scene.target):
            check_clean(host)
    finally:
        scene.close()


def last_phase(scene: Scene, host: Host | None = None) -> str:
    """Return how the latest migration that alpha, or another host, knows ended; empty while it has not."""
    try:
        found = admin.history(host or scene.source)
    except CommandError as error:
        if error.temporary:
            raise
        return ""
    return str(found[0]["phase"]) if found else ""


HANGING_RUNC = """\
#!/bin/sh
# Waits for its images as runc does, and then hangs where runc would call CRIU.
case " $* " in
*" restore "*" --lazy-pages "*)
    for word; do [ "$last" = --image-path ] && images=$word; last=$word; done
    cat "$images/descriptors.json" > /dev/null
    echo $$ > /run/hanging
    exec sleep 300 ;;
esac
exec /usr/bin/runc "$@"
"""
FAILING_RUNC = """\
#!/bin/sh
case " $* " in *" restore "*" --lazy-pages "*) echo 'Error (criu/lab.c:1): made to fail' >&2; exit 1 ;; esac
exec /usr/bin/runc "$@"
"""
