"""One visitor at a time: the model takes all of the machine, so requests wait for each other in order of arrival."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

_ASK_EVERY = 0.5  # seconds


class Crowded(RuntimeError):
    """Too many are waiting already."""


class Left(RuntimeError):
    """Who asked has gone before it was their turn."""


class Turns:
    """A queue in front of the model.

    Args:
        most_waiting: how many may wait; others are sent away.
    """

    def __init__(self, most_waiting: int):
        self._most_waiting = most_waiting
        self._lock = asyncio.Lock()  # wakes who waits in order of arrival
        self._tickets: dict[str, None] = {}  # in order of arrival; the first one's turn it is

    @contextlib.asynccontextmanager
    async def turn(self, ticket: str, has_left: Callable[[], Awaitable[bool]] | None = None) -> AsyncIterator[None]:
        """Waits for one's turn, and keeps it inside the `async with`.

        Args:
            ticket: a name for this request, to ask by how many are before it.
            has_left: asked now and then, so that nobody waits behind one who has gone.

        Raises:
            Crowded: too many wait; or the ticket is in use.
            Left: `has_left` said so.
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
        """How many will be served first: 0 = it is its turn; None = no such ticket (any more)."""
        return list(self._tickets).index(ticket) if ticket in self._tickets else None
