"""Whether the coordinator can be reached from here, and whether its clock and this machine's agree."""

from __future__ import annotations

import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from typing import Any

TIMEOUT_S = 5.0
MOST_AHEAD_S, MOST_BEHIND_S = 5.0, 305.0  # Flower (1.41) takes no message whose signed time lies outside of these
_RESOLUTION_S = 1.0  # of the time that a proxy tells


@dataclass(frozen=True)
class Reach:
    """What was found.

    Attributes:
        problem: what keeps this site from the coordinator, and the remedy; empty where nothing does.
        clock_ahead_s: seconds that this machine's clock is ahead of the coordinator's; ``None`` where nothing answers.
    """

    problem: str = ""
    clock_ahead_s: float | None = None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Nobody who answers may send this machine elsewhere."""

    def redirect_request(self, *_: Any) -> None:
        return None


def reach(address: str, authority: Path, *, now: Callable[[], float] = time.time) -> Reach:
    """Ask the coordinator's proxy for its time, over TLS and as the node would reach it.

    Args:
        address: ``host:port``.
        authority: certificate of the authority that must have signed the coordinator's.
        now: Unix time.
    """
    try:
        trusted = ssl.create_default_context(cafile=str(authority))
        opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=trusted), _NoRedirect)
        with opener.open(f"https://{address}/", timeout=TIMEOUT_S) as answer:
            headers: Message = answer.headers
    except urllib.error.HTTPError as error:  # what the proxy says to everybody who asks for no fleet path
        with error:
            headers = error.headers
    except (OSError, ValueError, HTTPException) as error:
        return Reach(f"{address} does not answer: {getattr(error, 'reason', error)}")
    try:
        ahead = now() - parsedate_to_datetime(headers["Date"]).timestamp() - _RESOLUTION_S / 2
    except (TypeError, ValueError):
        return Reach(f"{address} does not tell its time: something else answers there")
    return Reach(clock_problem(ahead), ahead)


def clock_problem(ahead_s: float) -> str:
    """Why no message of a node with such a clock is taken; empty where they are."""
    if -MOST_BEHIND_S + _RESOLUTION_S < ahead_s < MOST_AHEAD_S - _RESOLUTION_S:
        return ""
    side = f"{ahead_s:.0f} s ahead of" if ahead_s > 0 else f"{-ahead_s:.0f} s behind"
    return f"this machine's clock is {side} the coordinator's, and its messages are refused: set it (NTP)"
