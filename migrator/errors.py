"""Every error lifeboat raises on purpose.

    LifeboatError                 something a person must read; has a code, a hint and an exit status
    ├── UsageError                the request makes no sense: bad argument, bad file, unknown name
    ├── PrerequisiteError         found while nothing was disturbed; the container runs on the source
    ├── ExecutionError            a step failed while it was being done
    │   ├── CommandError          an external program failed, hung or was missing
    │   ├── JournalBusyError      nothing was written, for another thread waits for the journal's disk
    │   └── PeerError             another host refused, failed or could not be reached
    │       └── NotAllowedError   who asks may not: a stranger, a removed host, somebody else's migration
    └── CallAHumanError           a container may be on both hosts or on neither: nothing is done by itself

`PrerequisiteError` and `ExecutionError` are distinct so that a caller can tell "we looked and it cannot
work" from "we began and it broke".
"""

from __future__ import annotations

import logging

_log = logging.getLogger("lifeboat")


class LifeboatError(Exception):
    """An error with a sentence for people and a code for programs.

    `code` is stable and machine readable (`target-lacks-network`); `hint` says what to do about it;
    `temporary` is true when the same request may succeed later without anyone changing anything.
    """

    exit_status = 1

    def __init__(self, message: str, *, code: str, hint: str = "", temporary: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.temporary = temporary

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class UsageError(LifeboatError):
    """The request itself is wrong."""

    exit_status = 2


class PrerequisiteError(LifeboatError):
    """The deed cannot be done; nothing was changed."""

    exit_status = 3


class ExecutionError(LifeboatError):
    """A step failed."""

    exit_status = 4


class CommandError(ExecutionError):
    """An external program failed, hung or was missing."""


class JournalBusyError(ExecutionError):
    """The journal was not had in time; so nothing of what was to be written is on disk, nor ever will be."""


class PeerError(ExecutionError):
    """Another host refused, failed or could not be reached."""

    exit_status = 5


class NotAllowedError(PeerError):
    """Who asks is nobody who may ask that."""


class CallAHumanError(LifeboatError):
    """The state of a container is not certain, so lifeboat keeps its hands off."""

    exit_status = 6


def told_of(error: LifeboatError) -> dict[str, str | int]:
    """Return what programs are told of an error."""
    return {"error": error.message, "code": error.code, "hint": error.hint, "status": error.exit_status}


def failure(error: Exception) -> LifeboatError:
    """Return what ended a piece of work as one of ours; what nobody foresaw is logged with its traceback."""
    if isinstance(error, LifeboatError):
        return error
    _log.error("unexpected", exc_info=error)
    return ExecutionError(
        f"unexpected: {error!r}",
        code="unexpected",
        hint="the log of lifeboatd has more",
    )
