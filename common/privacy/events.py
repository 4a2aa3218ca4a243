"""Events as JSON: a closed set, read strictly, so a stored claim or ledger entry can be recomputed by anyone."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from common.errors import PrivacyConfigError
from common.privacy.groups import MOST_EXAMPLES, check_mixture, grouped

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
    from dp_accounting.dp_event import MixtureOfGaussiansDpEvent

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
        case dp.TruncatedSubsampledGaussianDpEvent():
            return {
                "event": "truncated_poisson_sampled",
                "units": int(event.dataset_size),
                "most_units": int(event.truncated_batch_size),
                "rate": float(event.sampling_probability),
                "noise_multiplier": float(event.noise_multiplier),
            }
        case MixtureOfGaussiansDpEvent():
            return {
                "event": "mixture_of_gaussians",
                "noise_multiplier": float(event.standard_deviation),
                "sensitivities": [float(shift) for shift in event.sensitivities],
                "probabilities": [float(chance) for chance in event.sampling_probs],
            }
    return _integer_to_json(event)


def _integer_to_json(event: Any) -> Any:
    from common.privacy.integer_events import DiscreteGaussianDpEvent, DiscreteGaussianSumDpEvent, SkellamDpEvent

    for name, kind in (("discrete_gaussian", DiscreteGaussianDpEvent), ("skellam", SkellamDpEvent)):
        if isinstance(event, kind):
            return {"event": name, **{field: float(value) for field, value in vars(event).items()}}
    if isinstance(event, DiscreteGaussianSumDpEvent):
        counts = {"shares": int(event.shares), "dimension": int(event.dimension)}
        return {"event": "discrete_gaussian_sum", **{k: float(v) for k, v in vars(event).items()}, **counts}
    raise PrivacyConfigError(f"{type(event).__name__} is not an event that can be stored")


def repeated(event: DpEvent, times: int) -> DpEvent:
    """``event`` so many times. Raises ``PrivacyConfigError`` for a negative number."""
    import dp_accounting as dp

    if times < 0:
        raise PrivacyConfigError(f"rounds must not be negative, not {times}")
    if times == 0:
        return dp.NoOpDpEvent()
    return event if times == 1 else dp.SelfComposedDpEvent(event, times)


def composed(events: list[DpEvent]) -> DpEvent:
    """All of ``events``, one or more, each chosen in the knowledge of what came out of those before."""
    import dp_accounting as dp

    return events[0] if len(events) == 1 else dp.ComposedDpEvent(events)


def truncated_poisson_event(noise_multiplier: float, *, rate: float, units: int, most_units: int) -> DpEvent:
    """One release of a sample drawn with ``rate``; where it is larger, a random subset of ``most_units`` is kept.

    Args:
        units: how many units there are in all. It enters the bound, so it must be public, and the adjacency must keep
            it: zero-out, or add/remove with the larger of the two numbers.

    Raises:
        PrivacyConfigError: a number is out of range.

    Source: Ganesh 2025 (arXiv 2508.15089), as implemented by dp_accounting.
    """
    import dp_accounting as dp

    event = dp.TruncatedSubsampledGaussianDpEvent(units, rate, most_units, noise_multiplier)
    grouped(event)  # checks the numbers
    return event


def examples_event(noise_multiplier: float, *, rate: float, most_examples: int) -> DpEvent:
    """One release for a unit of up to ``most_examples`` examples, where single EXAMPLES are drawn with ``rate``.

    Each example is clipped by itself, so a unit of which j are drawn changes the sum by up to j clip norms: a mixture
    of Gaussians with weights Binomial(k, rate). fedembed's own samplers draw whole units and clip them jointly: there a
    unit of any size is a plain Poisson-sampled Gaussian, and this event is not used.

    Args:
        most_examples: k, a bound that is enforced for every unit (1 to 1000).

    Raises:
        PrivacyConfigError: a number is out of range.

    Source: Charles et al. 2024 (arXiv 2407.07737), for which Choquette-Choo et al. 2024 (arXiv 2310.15526), corollary
    4.7, reduces vectors to their norms; smaller units cost less, as their number of drawn examples is smaller.
    """
    if not 1 <= most_examples <= MOST_EXAMPLES or not 0 < rate <= 1 or not 0 < noise_multiplier < math.inf:
        raise PrivacyConfigError(
            f"a unit needs 1 to {MOST_EXAMPLES} examples, a rate in (0, 1] and a positive noise multiplier"
        )
    from dp_accounting.dp_event import MixtureOfGaussiansDpEvent
    from scipy import stats

    likely = stats.binom.pmf(range(most_examples + 1), most_examples, rate)
    pairs = [(float(j), float(p)) for j, p in enumerate(likely) if p > 0]
    total = math.fsum(p for _, p in pairs)
    return MixtureOfGaussiansDpEvent(noise_multiplier, *zip(*((j, p / total) for j, p in pairs), strict=True))


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
    return _read_rare(data)


def _read_rare(data: dict[str, Any]) -> DpEvent:
    """Events without parts that few runs have."""
    from common.privacy.integer_events import DiscreteGaussianDpEvent, DiscreteGaussianSumDpEvent, SkellamDpEvent

    def number(name: str) -> float:
        return _number(data[name], name, math.inf)

    match data["event"]:
        case "truncated_poisson_sampled":
            _expect(data, {"units", "most_units", "rate", "noise_multiplier"})
            return truncated_poisson_event(
                number("noise_multiplier"),
                rate=_number(data["rate"], "rate", 1.0),
                units=_count(data["units"]),
                most_units=_count(data["most_units"]),
            )
        case "mixture_of_gaussians":
            _expect(data, {"noise_multiplier", "sensitivities", "probabilities"})
            return _mixture(number("noise_multiplier"), data["sensitivities"], data["probabilities"])
        case "discrete_gaussian":
            _expect(data, {"sigma", "l2_sensitivity"})
            return DiscreteGaussianDpEvent(number("sigma"), number("l2_sensitivity"))
        case "skellam":
            _expect(data, {"variance", "l1_sensitivity", "l2_sensitivity"})
            return SkellamDpEvent(number("variance"), number("l1_sensitivity"), number("l2_sensitivity"))
        case "discrete_gaussian_sum":
            _expect(data, {"sigma", "shares", "dimension", "l1_sensitivity", "l2_sensitivity"})
            return DiscreteGaussianSumDpEvent(
                number("sigma"),
                _count(data["shares"]),
                _count(data["dimension"]),
                number("l1_sensitivity"),
                number("l2_sensitivity"),
            )
    raise PrivacyConfigError("a stored event is of an unknown kind")


def _mixture(noise_multiplier: float, shifts: Any, chances: Any) -> DpEvent:
    from dp_accounting.dp_event import MixtureOfGaussiansDpEvent

    for numbers in (shifts, chances):
        short = isinstance(numbers, list) and len(numbers) <= MOST_EXAMPLES + 1
        if not short or not all(isinstance(x, (int, float)) and not isinstance(x, bool) for x in numbers):
            raise PrivacyConfigError("a stored mixture of Gaussians must hold two lists of numbers")
    lists = tuple(float(x) for x in shifts), tuple(float(x) for x in chances)
    check_mixture(*lists)
    return MixtureOfGaussiansDpEvent(noise_multiplier, *lists)


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
