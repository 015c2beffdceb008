"""Time as the clients of the network see it; tests bring their own and wait for nothing."""

import datetime as dt
import time
from collections.abc import Callable
from dataclasses import dataclass


def _utc_now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """Where a client reads the time, and how it waits."""

    monotonic_s: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now_utc: Callable[[], dt.datetime] = _utc_now

    def utc_text(self) -> str:
        """Return the time as ISO 8601 to the second, ``2026-11-21T03:47:16+00:00``."""
        return self.now_utc().isoformat(timespec="seconds")


SYSTEM_CLOCK = Clock()
