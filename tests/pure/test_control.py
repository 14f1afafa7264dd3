"""How a daemon and the programs that outlive it talk."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrator.control import ControlClient, ControlServer

MANY = 1100  # more than FD_SETSIZE


@pytest.fixture
def _many_descriptors() -> Iterator[None]:
    """This process has more descriptors than `select` can take."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 2 * MANY)), hard))
    held: list[int] = []
    try:
        while not held or held[-1] <= MANY:
            held.append(os.dup(0))
        yield
    finally:
        for descriptor in held:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("_many_descriptors")
def test_a_daemon_is_heard_whatever_the_number_of_its_descriptor(tmp_path: Path) -> None:
    """Each process of a container costs a pager a descriptor."""
    server = ControlServer(tmp_path / "sink.sock")
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
