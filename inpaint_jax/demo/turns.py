"""One visitor at a time: the model takes all of the machine, so requests wait for each other in order of arrival."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Crowded(RuntimeError):
    """Too many are waiting already."""


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
    async def turn(self, ticket: str) -> AsyncIterator[None]:
        """Waits for one's turn, and keeps it inside the `async with`.

        Args:
            ticket: a name for this request, to ask by how many are before it.

        Raises:
            Crowded: too many wait; or the ticket is in use.
        """
        if len(self._tickets) > self._most_waiting or ticket in self._tickets:
            raise Crowded("Many are waiting for the model just now; try again in a minute.")
        self._tickets[ticket] = None
        try:
            async with self._lock:
                yield
        finally:
            del self._tickets[ticket]

    def before(self, ticket: str) -> int | None:
        """How many will be served first: 0 = it is its turn; None = no such ticket (any more)."""
        return list(self._tickets).index(ticket) if ticket in self._tickets else None
