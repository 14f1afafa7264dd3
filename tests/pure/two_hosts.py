"""A host as a process of its own, with the real engine, peers and streams, and a podman that is a script.

`python -m tests.pure.two_hosts PLACE NAME [CONTAINER TARGET]`: serves; with a container it also moves it cold to a
target, and prints how that ended.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from migrator.engine import Engine
from migrator.health import Health
from migrator.model import Method
from migrator.peers.membership import PeerDirectory
from migrator.runtime import tombstone
from migrator.settings import MigratorSettings
from watchdog.daemon.peering import Peering

PODMAN = '''\
#!{python}
"""Knows containers by a file of JSON; starts and stops nothing."""
import json, os, sys
from pathlib import Path

place = Path(os.environ["PODMAN_PLACE"])
file = place / "containers.json"
known = json.loads(file.read_text()) if file.exists() else {{}}
words = sys.argv[1:]


def save():
    temporary = file.with_suffix(f".{{os.getpid()}}")
    temporary.write_text(json.dumps(known))
    temporary.replace(file)


def find(name):
    return next((key for key, item in known.items() if name in (key, item["id"])), None)


def inspected(name):
    item = known[name]
    return {{
        "Id": item["id"], "Name": name, "ImageName": "i", "Image": "1", "OCIRuntime": "runc",
        "State": {{"Running": item["running"], "Pid": 1}}, "NetworkSettings": {{"Networks": {{}}}}, "Mounts": [],
        "Config": {{"Labels": {{}}, "CreateCommand": ["podman", "run", "-d", "--name", name, "i"]}},
        "HostConfig": {{"RestartPolicy": {{"Name": "always"}}}}, "StaticDir": str(place),
        "GraphDriver": {{"Name": "overlay", "Data": {{"UpperDir": item["upper"]}}}},
    }}


name = find(words[-1]) if words else None
if words[:2] == ["container", "inspect"]:
    if name is None:
        sys.exit("Error: no such container")
    print(known[name]["running"] and "true" or "false" if "--format" in words else json.dumps([inspected(name)]))
elif words[1:2] == ["exists"]:
    sys.exit(0 if words[0] == "image" or name else 1)
elif words[0] == "create":
    name = words[words.index("--name") + 1]
    upper = place / f"upper-{{name}}"
    upper.mkdir(exist_ok=True)
    known[name] = {{"id": os.urandom(32).hex(), "running": False, "upper": str(upper)}}
    save()
elif words[0] in ("start", "stop"):
    known[name]["running"] = words[0] == "start"
    save()
elif words[0] == "rm":
    if name:
        del known[name]
        save()
elif words[0] == "info":
    print(json.dumps({{"store": {{"graphRoot": "/tmp", "runRoot": "/r", "volumePath": "/tmp/volumes"}}}}))
else:
    print("[]")
'''


def main() -> int:
    """Be a host."""
    place, name = Path(sys.argv[1]), sys.argv[2]
    os.environ["PODMAN_PLACE"] = str(place / name)
    os.environ["PATH"] = f"{place / 'bin'}:{os.environ['PATH']}"
    tombstone.HOOK_DIRECTORIES = (place,)
    tombstone.ALLOWED = place / name / "allowed"
    members = PeerDirectory(place / "etc" / name)
    engine = Engine(
        host=name,
        settings=MigratorSettings(accept_privileged=True, reconnect_limit_s=2),
        state=place / name / "state",
        runtime=place / name / "run",
        peers=members,
        health=Health,
    )
    engine.take_up()
    Peering(engine, members, "").start()
    engine.recover(lambda outcome: print("ended", outcome.phase, flush=True), lambda text: print(text, flush=True))
    print("ready", flush=True)
    if len(sys.argv) > 3:
        outcome = engine.migrate(sys.argv[3], sys.argv[4], Method.COLD, lambda _: None, planned=True)
        print("moved", outcome.phase, outcome.error, flush=True)
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
