"""Events as JSON: a closed set, read strictly, so a stored claim or ledger entry can be recomputed by anyone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from common.errors import PrivacyConfigError

if TYPE_CHECKING:
    from dp_accounting import DpEvent

_MAX_DEPTH = 8
_MAX_PARTS = 100_000
_MAX_COUNT = 10**9


def event_to_json(event: DpEvent) -> Any:
    """A JSON value that ``event_from_json`` turns back into an equal event.

    Raises:
        PrivacyConfigError: the event is not of the closed set.
    """
    import dp_accounting as dp

    match event:
        case dp.NoOpDpEvent():
            return {"event": "no_op"}
        case dp.NonPrivateDpEvent():
            return {"event": "non_private"}
        case dp.GaussianDpEvent():
            return {"event": "gaussian", "noise_multiplier": float(event.noise_multiplier)}
        case dp.PoissonSampledDpEvent() if isinstance(event.event, dp.GaussianDpEvent):
            inner = event_to_json(event.event)
            return {"event": "poisson_sampled", "rate": float(event.sampling_probability), "of": inner}
        case dp.SelfComposedDpEvent():
            return {"event": "repeated", "count": int(event.count), "of": event_to_json(event.event)}
        case dp.ComposedDpEvent():
            return {"event": "composed", "of": [event_to_json(part) for part in event.events]}
    raise PrivacyConfigError(f"{type(event).__name__} is not an event that can be stored")


def event_from_json(data: Any) -> DpEvent:
    """Inverse of ``event_to_json``; anything unexpected is refused.

    Raises:
        PrivacyConfigError: unknown kind, missing or extra key, number out of range, too deep or too long.
    """
    return _read(data, 0)


def _read(data: Any, depth: int) -> DpEvent:
    import dp_accounting as dp

    if depth > _MAX_DEPTH:
        raise PrivacyConfigError(f"a stored event is nested deeper than {_MAX_DEPTH}")
    if not isinstance(data, dict) or not isinstance(data.get("event"), str):
        raise PrivacyConfigError("a stored event must be an object with a text field 'event'")
    match data["event"]:
        case "no_op":
            _expect(data, set())
            return dp.NoOpDpEvent()
        case "non_private":
            _expect(data, set())
            return dp.NonPrivateDpEvent()
        case "gaussian":
            _expect(data, {"noise_multiplier"})
            return dp.GaussianDpEvent(_number(data["noise_multiplier"], "noise_multiplier", math.inf))
        case "poisson_sampled":
            _expect(data, {"rate", "of"})
            inner = _read(data["of"], depth + 1)
            if not isinstance(inner, dp.GaussianDpEvent):
                raise PrivacyConfigError(
                    "only a single Gaussian can be Poisson-sampled: no accountant here covers more"
                )
            return dp.PoissonSampledDpEvent(_number(data["rate"], "rate", 1.0), inner)
        case "repeated":
            _expect(data, {"count", "of"})
            return dp.SelfComposedDpEvent(_read(data["of"], depth + 1), _count(data["count"]))
        case "composed":
            _expect(data, {"of"})
            if not isinstance(data["of"], list) or len(data["of"]) > _MAX_PARTS:
                raise PrivacyConfigError(f"a composed event must hold a list of at most {_MAX_PARTS} events")
            return dp.ComposedDpEvent([_read(part, depth + 1) for part in data["of"]])
    raise PrivacyConfigError("a stored event is of an unknown kind")


def _expect(data: dict[str, Any], keys: set[str]) -> None:
    if set(data) != keys | {"event"}:
        raise PrivacyConfigError(f"a stored {data['event']} event must have exactly the keys {sorted(keys)}")


def _number(value: Any, name: str, most: float) -> float:
    good = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not good or not 0 < value <= most or math.isinf(value):
        raise PrivacyConfigError(f"the {name} of a stored event is out of range")
    return float(value)


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_COUNT:
        raise PrivacyConfigError("the count of a stored event is out of range")
    return value
