"""uvicorn's server without its clock, for a daemon that has to cost nothing while nobody asks."""

from __future__ import annotations

import asyncio

import uvicorn


class QuietServer(uvicorn.Server):
    """Sleeps until it is told to exit.

    uvicorn's own loop wakes ten times a second, to see whether it shall exit and to renew the Date header (which
    is therefore left out). Setting `should_exit`, from any thread, ends this one.
    """

    def __init__(self, config: uvicorn.Config) -> None:
        config.date_header = False
        self._exiting = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._told = asyncio.Event()
        super().__init__(config)

    @property
    def should_exit(self) -> bool:
        """Say whether it shall exit."""
        return self._exiting

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        self._exiting = value
        if value and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._told.set)

    async def main_loop(self) -> None:
        """Serve until told to exit."""
        self._loop = asyncio.get_running_loop()
        await self.on_tick(0)  # sets the headers of all answers
        if not self.should_exit:
            await self._told.wait()
