"""The public history of a run: which facts of a round may be published under which mode."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from common.errors import ReleaseError

SPEND_POINTS = 6  # rounds whose spend is computed: each costs the accountant up to a second

# Each depends on the scenario, on the public number of clients, on the clock or on sums that already carry noise.
PUBLIC_FIELDS = frozenset(
    {
        "round",
        "noise_stddev",
        "epsilon",
        "step_norm",
        "enrolled_clients",
        "cohort_expected",
        "selected_rows",
    }
)


def unpublishable(rounds: Iterable[Mapping[str, Any]], mode: str) -> list[str]:
    """Sorted names of fields that ``rounds`` must not hold in ``mode``.

    Everything outside ``PUBLIC_FIELDS`` (loss, update norms, counted replies: a cohort's size tells of membership)
    is a function of single clients' data without noise. Only mode ``none``, which claims nothing, may publish it.
    """
    if mode == "none":
        return []
    return sorted({name for entry in rounds for name in entry if name not in PUBLIC_FIELDS})


def refuse_unpublishable(rounds: Iterable[Mapping[str, Any]], mode: str) -> None:
    """Raise ``ReleaseError`` if ``rounds`` holds a field that ``mode`` does not allow to be published."""
    found = unpublishable(rounds, mode)
    if found:
        raise ReleaseError(
            f"the history holds {', '.join(found)}, which carry no noise: not to be published in mode {mode!r}",
            remedy="Collect them in mode 'none' only.",
        )


def with_spend(rounds: Sequence[Mapping[str, Any]], certificate: Mapping[str, Any]) -> list[dict[str, Any]]:
    """``rounds`` with ``epsilon`` (observer -> spend so far) in up to six of them, the last always among these.

    Attempts that count against the budget without having become a round are placed before the first one, so no
    entry states too little and the last states what the certificate does. Void certificates spend nothing that
    could be stated, so they get no entries.
    """
    from common.privacy.claim import OBSERVERS, plan_of

    entries = [dict(entry) for entry in rounds]
    if certificate["void"] or not entries:
        return entries
    plan, whole = plan_of(certificate), certificate["selections_released"]
    lost, again = certificate["rounds_released"] - len(entries), whole - plan.selections(len(entries))
    points = min(SPEND_POINTS, len(entries))
    for number in {math.ceil(len(entries) * (k + 1) / points) for k in range(points)}:
        votes = min(whole, max(plan.selections(number + lost), plan.selections(number) + again))
        spend = {o: plan.epsilon(o, number + lost, votes) for o in OBSERVERS if plan.protects(o)}
        entries[number - 1]["epsilon"] = {o: value for o, value in spend.items() if math.isfinite(value)}
    return entries
