"""An admin's program as a source, with real programs: endings, floods, what hangs, what it leaves behind."""

from __future__ import annotations

import os
import select
from pathlib import Path

import pytest

from watchdog.signals.script import KEPT_BYTES, LONGEST_REASON, STILL_THERE, ScriptReader
from watchdog.signals.settings import Script


def reader(*command: str, timeout_s: float = 20.0) -> ScriptReader:
    return ScriptReader(Script(name="it", command=command, timeout_s=timeout_s))


def result(script: ScriptReader) -> tuple[float | None, str]:
    (found,) = script.read(1.0)
    assert found.device.about == {"script": "it"}
    return found.value, found.reason


@pytest.mark.parametrize(
    ("command", "value", "words"),
    [
        (("sh", "-c", "echo all well; exit 0"), 0.0, "all well"),
        (("sh", "-c", "echo; echo battery low >&2; exit 1"), 1.0, "battery low"),
        (("sh", "-c", "echo no idea; exit 2"), None, "exit status 2: no idea"),
        (("sh", "-c", "kill -9 $$"), None, "signal 9"),
        (("/nonexistent/program",), None, "not installed"),
    ],
)
def test_the_exit_status_is_the_verdict(command: tuple[str, ...], value: float | None, words: str) -> None:
    found, reason = result(reader(*command))
    assert found == value
    assert words in reason


def test_a_program_that_hangs_is_killed_with_all_it_has_started(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    found, reason = result(reader("sh", "-c", f"sleep 600 & echo $! > {file}; wait", timeout_s=1.0))
    assert (found, reason) == (None, "it did not end within 1 s")
    _assert_gone(int(file.read_text()))


def test_what_a_program_leaves_behind_is_killed_and_does_not_hold_it_up(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    assert result(reader("sh", "-c", f"sleep 600 & echo $! > {file}; echo done"))[0] == 0.0
    _assert_gone(int(file.read_text()))


def _assert_gone(number: int) -> None:
    """Wait for the end of a process that was killed."""
    try:
        descriptor = os.pidfd_open(number)
    except ProcessLookupError:
        return
    ended, _, _ = select.select([descriptor], [], [], 10)
    os.close(descriptor)
    assert ended


def test_output_is_capped_however_much_there_is() -> None:
    found, reason = result(reader("sh", "-c", "yes | head -c 20000000; exit 1"))
    assert found == 1.0
    assert len(reason) <= LONGEST_REASON < KEPT_BYTES


def test_a_program_that_closes_its_output_is_still_waited_for() -> None:
    assert result(reader("sh", "-c", "exec >&- 2>&-; sleep 0.2; exit 1"))[0] == 1.0


def test_output_that_is_no_text_is_no_error() -> None:
    assert result(reader("sh", "-c", "printf '\\377\\376\\n'; exit 0"))[0] == 0.0


def test_it_never_runs_twice_at_a_time(tmp_path: Path) -> None:
    script = reader("sh", "-c", f"echo run >> {tmp_path / 'runs'}; exit 0")
    script.read(1.0)
    script._running = _Unkillable()  # type: ignore[assignment]  # as one in uninterruptible sleep is
    assert result(script) == (None, STILL_THERE)
    assert (tmp_path / "runs").read_text() == "run\n"


class _Unkillable:
    def poll(self) -> None:
        """It runs and runs."""
