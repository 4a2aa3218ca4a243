from __future__ import annotations

import json
import math
from typing import Any

import dp_accounting as dp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PrivacyConfigError
from common.privacy.accounting import event_from_json, event_to_json

GAUSSIAN = st.builds(dp.GaussianDpEvent, st.floats(1e-3, 1e6))
LEAF = st.one_of(
    GAUSSIAN,
    st.builds(dp.PoissonSampledDpEvent, st.floats(1e-9, 1.0), GAUSSIAN),
    st.just(dp.NoOpDpEvent()),
    st.just(dp.NonPrivateDpEvent()),
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
