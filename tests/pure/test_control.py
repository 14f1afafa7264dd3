"""How a daemon and the programs that outlive it talk."""

from __future__ import annotations

import os
import resource
import threading
from pathlib import Path

import pytest

from migrator.control import ControlClient, ControlServer

MANY = 1100  # more than FD_SETSIZE


def test_a_daemon_is_heard_whatever_the_number_of_its_descriptor(tmp_path: Path) -> None:
    """Each process of a container costs a pager a descriptor; `select` takes none above 1023."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < MANY + 100:
        pytest.skip(f"no more than {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (MANY + 100, hard))
    server = ControlServer(tmp_path / "sink.sock")
    held = [os.dup(0) for _ in range(MANY)]
    client = ControlClient(tmp_path / "sink.sock", timeout_s=5, what="the sink")
    try:
        assert server.wait(0.2) is None
        asking = threading.Thread(target=client.ask, args=({"do": "progress"},), kwargs={"timeout_s": 5})
        asking.start()
        assert server.wait(5) == {"do": "progress"}
        server.say({"event": "draining"})
        asking.join(5)
    finally:
        client.close()
        server.close()
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
