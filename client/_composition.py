"""Events of the ledger as ``dp_accounting`` knows them, and what they cost together."""

from __future__ import annotations

import functools
import json

from common.errors import FedembedError, LedgerError


@functools.lru_cache(maxsize=256)  # pure: events are few, data sets many
def event_of(event_json: str) -> object:
    """The event that a text stands for. Raises ``LedgerError`` for one that cannot be accounted."""
    from common.privacy.accounting import event_from_json

    try:
        return event_from_json(json.loads(event_json))
    except (ValueError, TypeError, FedembedError):
        raise LedgerError("an event in a reservation is not one that can be accounted") from None


@functools.lru_cache(maxsize=4096)
def composed_epsilon(events: tuple[tuple[str, int], ...], delta: float) -> float:
    """Epsilon at ``delta`` of events (text, how often) one after the other, each chosen in sight of those before."""
    import dp_accounting

    from common.privacy import accounting

    parts = [dp_accounting.SelfComposedDpEvent(event_of(event), count) for event, count in events if count > 0]
    return accounting.epsilon(dp_accounting.ComposedDpEvent(parts), delta)
