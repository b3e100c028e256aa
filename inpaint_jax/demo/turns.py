"""One visitor at a time: the model uses the whole machine, so requests wait in order of arrival."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

_ASK_EVERY = 0.5  # seconds


class Crowded(RuntimeError):
    """Too many requests are waiting already."""


class Left(RuntimeError):
    """The visitor left, or the server is ending, before there was an answer."""

    def __init__(self) -> None:
        super().__init__("The server was ended; start it again.")  # whoever has left does not read it


class Turns:
    """A queue in front of the model.

    Args:
        most_waiting: How many requests may wait; others are refused.
    """

    def __init__(self, most_waiting: int):
        self._most_waiting = most_waiting
        self._lock = asyncio.Lock()  # wakes waiting requests in order of arrival
        self._tickets: dict[str, None] = {}  # in order of arrival; it is the turn of the first one

    @contextlib.asynccontextmanager
    async def turn(self, ticket: str, has_left: Callable[[], Awaitable[bool]] | None = None) -> AsyncIterator[None]:
        """Waits for the turn of a request, and holds it inside the `async with`.

        Args:
            ticket: A name for this request; `before` takes it.
            has_left: Called now and then, so that nobody waits behind a visitor who has left.

        Raises:
            Crowded: Too many requests wait, or the ticket is in use.
            Left: `has_left` returned True.
        """
        if len(self._tickets) > self._most_waiting or ticket in self._tickets:
            raise Crowded("Many are waiting for the model just now; try again in a minute.")
        self._tickets[ticket] = None
        try:
            await self._acquire(has_left)
            try:
                yield
            finally:
                self._lock.release()
        finally:
            del self._tickets[ticket]

    async def _acquire(self, has_left: Callable[[], Awaitable[bool]] | None) -> None:
        waiting = asyncio.ensure_future(self._lock.acquire())
        try:
            while not waiting.done():
                await asyncio.wait({waiting}, timeout=_ASK_EVERY)
                if has_left is not None and await has_left():
                    raise Left
        except BaseException:
            if not waiting.cancel():  # it was granted meanwhile
                self._lock.release()
            raise

    def before(self, ticket: str) -> int | None:
        """How many requests are served first: 0 = it has its turn, None = there is no such ticket (any more)."""
        return list(self._tickets).index(ticket) if ticket in self._tickets else None
