"""Sizes that both sides know before anything is sent: never below what is sent, and not far above."""

from __future__ import annotations

import pytest

from common.secagg.sizes import FRAME_BYTES, answer_bytes, vector_bytes
from simulations.protocol_checks.trial import TWO_PHASES, Trial, trial_terms


@pytest.mark.parametrize(
    ("clients", "changes"),
    [(5, {}), (5, {"signed": True}), (34, {"degree": 6, "least_survivors": 10, "least_cohort": 10})],
    ids=str,
)
def test_nothing_is_larger_than_its_bound(clients: int, changes: dict[str, int]) -> None:
    trial = Trial(clients, terms=trial_terms(clients, phases=TWO_PHASES, **changes))
    trial.advertise().share()
    sent = [trial.sent["advert"], trial.sent["shares"]]
    for phase in trial.terms.phases:
        if phase is not trial.terms.phases[0]:
            trial.next_phase()
        trial.mask()
        for vector in trial.sent["masked"].values():
            size = len(vector.header) + len(vector.body)
            assert size + FRAME_BYTES <= vector_bytes(phase) <= size + FRAME_BYTES + 32
        trial.confirm().reveal()
        trial.finish()
        sent += [trial.sent["confirmation"], trial.sent["reveal"]]
    adverts, shares, _, reveals, *_ = (max(map(len, hop.values())) for hop in sent)
    bound = answer_bytes(trial.terms, clients) - FRAME_BYTES
    assert max(len(message) for hop in sent for message in hop.values()) <= bound
    assert reveals + adverts <= bound, "the next round's advert rides on a reveal"
    if clients == 5:
        assert bound <= max(shares, reveals + adverts) + 128
