"""Who may skip what, and the lab that all real tests share."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator

import pytest

from tests.lab.clean import clean
from tests.lab.cluster import start
from tests.lab.lab import UP, Lab
from tests.lab.witness import last_words

IN_CI = bool(os.environ.get("CI"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip real tests where they cannot run, saying why; in CI they run and fail instead."""
    if os.geteuid() == 0 or IN_CI:
        return
    for item in items:
        if item.get_closest_marker("real"):
            item.add_marker(pytest.mark.skip(reason="real tests need root and the lab: sudo ./run test"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skipped test into a failed one in CI, where all that is needed has to be there; ask why one failed."""
    report = yield
    if report.failed and report.when == "call" and item.get_closest_marker("real"):
        lab = getattr(item, "funcargs", {}).get("lab") or next(reversed(UP), None)
        report.sections.extend(last_words(lab) if lab is not None else ())
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, and in CI nothing may: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def shared_lab() -> Iterator[Lab]:
    """Two hosts for the whole run; use `lab`, which is clean."""
    with Lab(2, name=f"test-{os.getpid()}") as lab:
        yield lab


@pytest.fixture
def cluster(lab: Lab) -> Lab:
    """The clean lab with its hosts joined to one cluster and lifeboatd running, with default settings."""
    start(lab)
    return lab


@pytest.fixture
def lab(shared_lab: Lab) -> Iterator[Lab]:
    """Two clean hosts, alpha and beta, with lifeboat installed and lifeboatd not yet started."""
    for host in shared_lab.hosts.values():
        if not host.running:
            shared_lab.renew(host.name)
    yield shared_lab
    clean(shared_lab)
