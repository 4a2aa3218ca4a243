from __future__ import annotations

import json
import math
from typing import Any

import dp_accounting as dp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PrivacyConfigError
from common.privacy.accounting import event_from_json, event_to_json, examples_event, truncated_poisson_event
from common.privacy.integer_events import DiscreteGaussianDpEvent, SkellamDpEvent

GAUSSIAN = st.builds(dp.GaussianDpEvent, st.floats(1e-3, 1e6))
LEAF = st.one_of(
    GAUSSIAN,
    st.builds(dp.PoissonSampledDpEvent, st.floats(1e-9, 1.0), GAUSSIAN),
    st.just(dp.NoOpDpEvent()),
    st.just(dp.NonPrivateDpEvent()),
    st.builds(DiscreteGaussianDpEvent, st.floats(1e-3, 1e6), st.floats(1e-3, 1e6)),
    st.builds(SkellamDpEvent, st.floats(1e-3, 1e6), st.floats(10, 1e6), st.floats(1e-3, 10)),
    st.builds(
        lambda sigma, rate, most: truncated_poisson_event(sigma, rate=rate, units=100, most_units=most),
        st.floats(1e-3, 1e6),
        st.floats(1e-9, 0.999),
        st.integers(1, 200),
    ),
    st.builds(
        lambda sigma, rate, most: examples_event(sigma, rate=rate, most_examples=most),
        st.floats(1e-3, 1e6),
        st.floats(1e-9, 1.0),
        st.integers(1, 1000),
    ),
)
EVENT = st.recursive(
    LEAF,
    lambda inner: st.one_of(
        st.builds(dp.SelfComposedDpEvent, inner, st.integers(1, 10**9)),
        st.builds(dp.ComposedDpEvent, st.lists(inner, max_size=3)),
    ),
    max_leaves=6,
)


@settings(max_examples=50, deadline=None)
@given(EVENT)
def test_events_survive_json(event: dp.DpEvent) -> None:
    data = json.loads(json.dumps(event_to_json(event), allow_nan=False))
    assert event_from_json(data) == event


G = {"event": "gaussian", "noise_multiplier": 1.0}
D = {"event": "discrete_gaussian", "sigma": 4.0, "l2_sensitivity": 2.0}
S = {"event": "skellam", "variance": 4.0, "l1_sensitivity": 4.0, "l2_sensitivity": 2.0}
T = {"event": "truncated_poisson_sampled", "units": 9, "most_units": 2, "rate": 0.1, "noise_multiplier": 1.0}
M = {
    "event": "mixture_of_gaussians",
    "noise_multiplier": 1.0,
    "sensitivities": [0.0, 1.0, 2.0],
    "probabilities": [0.5, 0.25, 0.25],
}


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "gaussian",
        {},
        {"event": 3},
        {"event": "laplace"},
        {"event": "gaussian"},
        {**G, "extra": 1},
        {**G, "noise_multiplier": 0.0},
        {**G, "noise_multiplier": -1.0},
        {**G, "noise_multiplier": math.nan},
        {**G, "noise_multiplier": math.inf},
        {**G, "noise_multiplier": True},
        {**G, "noise_multiplier": "1"},
        {"event": "no_op", "count": 1},
        {"event": "poisson_sampled", "rate": 0.0, "of": G},
        {"event": "poisson_sampled", "rate": 1.5, "of": G},
        {"event": "poisson_sampled", "rate": 0.5, "of": {"event": "composed", "of": [G, G]}},
        {"event": "poisson_sampled", "rate": 0.5, "of": {"event": "repeated", "count": 2, "of": G}},
        {"event": "repeated", "count": 0, "of": G},
        {"event": "repeated", "count": 1.5, "of": G},
        {"event": "repeated", "count": True, "of": G},
        {"event": "repeated", "count": 10**10, "of": G},
        {"event": "repeated", "count": 2},
        *({**D, "sigma": bad} for bad in (0.0, -1.0, math.nan, math.inf, True, "1", None)),
        {"event": "discrete_gaussian", "sigma": 4.0},
        {**D, "noise_multiplier": 1.0},
        *({**S, "l1_sensitivity": bad} for bad in (0.0, 1.0, math.nan, "4")),
        {**S, "order": 2},
        {"event": "poisson_sampled", "rate": 0.5, "of": D},
        {"event": "poisson_sampled", "rate": 0.5, "of": T},
        {"event": "poisson_sampled", "rate": 0.5, "of": M},
        *({**T, "units": bad} for bad in (0, 9.0, True, "9", 10**10)),
        *({**T, "most_units": bad} for bad in (0, -1, 2.0)),
        *({**T, "rate": bad} for bad in (0.0, 1.0, 2.0, None)),
        {**T, "noise_multiplier": 0.0},
        {**M, "noise_multiplier": 0.0},
        *(
            {**M, "sensitivities": bad}
            for bad in (None, 1.0, [0.0, 1.0], [2.0, 1.0, 0.0], [0.0, True, 2.0], ["0", 1, 2])
        ),
        *({**M, "probabilities": bad} for bad in ([0.5, 0.25, 0.2], [1.0, 0.5, -0.5], {}, [[0.5], 0.25, 0.25])),
        {**M, "sensitivities": list(range(2000)), "probabilities": [1 / 2000] * 2000},
        {"event": "composed", "of": G},
        {"event": "composed", "of": [G, None]},
        {"event": "composed", "of": [G] * 100_001},
    ],
)
def test_malformed_events_are_refused(data: Any) -> None:
    with pytest.raises(PrivacyConfigError):
        event_from_json(data)


def test_deep_nesting_is_refused() -> None:
    data: Any = G
    for _ in range(50):
        data = {"event": "composed", "of": [data]}
    with pytest.raises(PrivacyConfigError, match="nested"):
        event_from_json(data)


@pytest.mark.parametrize("event", [dp.LaplaceDpEvent(1.0), dp.PoissonSampledDpEvent(0.1, dp.LaplaceDpEvent(1.0))])
def test_other_events_are_not_written(event: dp.DpEvent) -> None:
    with pytest.raises(PrivacyConfigError, match="can be stored"):
        event_to_json(event)
