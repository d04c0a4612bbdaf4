"""Those of one event loop who wait for a permit of one purpose: only the first asks Redis."""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from aifaceswap._api.responses import error_class
from aifaceswap.errors import APIStatusError


class Lane:
    """A queue in which each has its turn, or is rejected once it cannot be in time."""

    def __init__(self, requests: int, per: float) -> None:
        self._requests = requests
        self._per = per
        self._loop = asyncio.get_running_loop()
        # The first is the one that asks; with the moments at which they stop waiting.
        self._turns: OrderedDict[asyncio.Future[None], float] = OrderedDict()
        self._held_until = 0.0
        self._code = ""

    async def enter(self, ends: float) -> asyncio.Future[None]:
        """Wait for one's turn; `leave` ends it."""
        turn = self._loop.create_future()
        if not self._turns:
            turn.set_result(None)
        elif (earliest := self._earliest(len(self._turns))) > ends:
            raise self.rejection(self._code, earliest - self._loop.time())
        self._turns[turn] = ends
        try:
            await turn
        except BaseException:
            self.leave(turn)
            raise
        return turn

    def leave(self, turn: asyncio.Future[None]) -> None:
        """End one's turn, or stop waiting for it."""
        was_first = turn is next(iter(self._turns), None)
        self._turns.pop(turn, None)
        if was_first:
            self._held_until = 0.0
            first = next(iter(self._turns), None)
            if first is not None and not first.done():
                first.set_result(None)

    def hold(self, seconds: float, code: str) -> None:
        """The first has to wait: reject those behind it who cannot be in time."""
        now = self._loop.time()
        self._held_until, self._code = now + seconds, code
        late = [
            turn
            for place, (turn, ends) in enumerate(self._turns.items())
            if place and self._earliest(place) > ends
        ]
        for turn in late:
            del self._turns[turn]
            if not turn.done():
                turn.set_exception(self.rejection(code, self._held_until - now))

    def rejection(self, code: str, seconds: float) -> APIStatusError:
        """The error of a call that cannot go in time."""
        text = {
            "rate_limited": f"the limit of {self._requests} requests in {self._per:g} s is used up",
            "rate_limited_daily": "the limit of requests per UTC day is used up",
        }.get(code, f"requests are paused after a 429 {code} response")
        text += f"; the next one can be sent in {seconds:.1f} s at the earliest"
        return error_class(429, code)(text, status=429, code=code, retry_after=seconds)

    def _earliest(self, place: int) -> float:
        """When the one at this place can get a permit, at the earliest."""
        if not self._held_until:
            return 0.0
        return self._held_until + place // self._requests * self._per
