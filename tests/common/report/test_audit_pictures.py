"""The drawings of an audit's page: each from the record alone; what cannot be drawn says why."""

from __future__ import annotations

import re

from common.evaluation.report import audit_plots, audit_record
from common.evaluation.report.audit_page import write_audit_page
from tests.common.report._audits import (
    MAP,
    UNPICTURED,
    audit,
    audit_of_release,
    drawn,
    first_part,
    leak,
    line,
    quality,
    view,
)
from tests.common.report._pages import Page, text_of


def test_ids_of_drawings_do_not_collide() -> None:
    found = re.findall(r' id="([^"]+)"', drawn("scenario"))
    clips = [name for name in found if re.fullmatch(r"p[0-9a-f]+", name)]  # the ones that are referred to
    assert clips and len(set(clips)) == len(clips)


def test_silence_can_be_read() -> None:
    """A design of canaries that could not have spoken is not hidden behind one that could."""
    deaf = [line(detectable=1.41), line(design="alternating", detectable=None, cap=2.5)]
    views = audit(views=[view(tests=deaf)]).views
    assert audit_plots.detectable_plot(views).count("nothing is noticed") == 1
    assert "#a11d1d" in audit_plots.cap_plot(views)
    sharp = audit(views=[view(tests=[deaf[0]])]).views
    assert "nothing is noticed" not in audit_plots.detectable_plot(sharp)
    assert "#a11d1d" not in audit_plots.cap_plot(sharp)


def test_the_cap_is_that_of_guesses() -> None:
    """The difference of means has no cap: taken for the audit's it would make every silence look like an answer."""
    tests = [
        audit_record.TestLine.model_validate(line(cap=2.5)),
        audit_record.TestLine.model_validate(line(cap="inf", guesses=None)),
    ]
    assert audit_plots.cap(tests) == 2.5
    assert audit_plots.cap(tests[1:]) == "inf"
    assert audit_plots.cap([]) is None
    assert audit_plots.shown([*tests, audit_record.TestLine.model_validate(line(bound="inf"))]) == "inf"


def test_pictures_of_cost_show_what_the_record_holds() -> None:
    html = drawn("scenario")
    for words in (
        "Epsilon, round by round",
        "Quality against epsilon: similarity:pairs.tsv",
        "Baseline: random table.",
    ):
        assert words in html, words
    plot = audit_plots.quality_plot(audit().quality)
    for words in ("epsilon claimed", "∞", "2.996", "unprotected", "audited", "spearman (higher is better)"):
        assert words in plot, words
    assert "unprotected" not in audit_plots.quality_plot(audit_of_release().quality)
    assert "lower is better" in audit_plots.quality_plot(audit(quality=[quality(higher_is_better=False)]).quality)
    assert audit_plots.quality_plot(audit(quality=[quality(value=None)]).quality) == audit_plots.quality_plot(()) == ""


def test_the_map_has_every_row_of_the_record() -> None:
    html = drawn("scenario")
    figure = re.findall(r'<figure class="map">(.*?)</figure>', html, re.DOTALL)
    assert len(figure) == 1 and figure[0].count("<use") == len(MAP["keys"])
    assert "The first 4 rows, noise included" in html and "40.83 % of their variance" in html


def test_pictures_that_are_missing_say_why(undrawn: None) -> None:
    reasons = {"spend": "nothing is claimed", "quality": "no task is named", "map": "no noise is claimed"}
    words = first_part(write_audit_page(audit(**UNPICTURED, absent=reasons)))
    for said in (
        "Epsilon over rounds is not drawn: nothing is claimed.",
        "Quality against epsilon is not drawn: no task is named.",
        "It is not drawn: no noise is claimed.",
    ):
        assert said in words
    assert "is not drawn" not in first_part(write_audit_page(audit()))


def test_one_round_needs_no_drawing(undrawn: None) -> None:
    once = [{"round": 1, "epsilon": {"public": 2.99591}}]
    html = write_audit_page(audit(spend=once))
    assert "all of it is spent in the only round." in text_of(html)
    assert "Epsilon, round by round" not in html and "2.996" in Page(html).cells


def test_observers_who_see_the_same_share_a_drawing() -> None:
    views = audit(views=[view(), view(observer="coordinator")]).views
    assert [who for who, _ in audit_plots.distinct(views)] == ["other clients and coordinator"]
    apart = audit(views=[view(), view(observer="coordinator", claimed_epsilon=4.0)]).views
    assert [who for who, _ in audit_plots.distinct(apart)] == ["other clients", "coordinator"]
    assert "sums, coordinator: dedicated" in audit_plots.cap_plot(apart)
    assert "sums: dedicated" in audit_plots.cap_plot(views)


def test_curves_that_do_not_fit_are_not_drawn() -> None:
    lopsided = audit(views=[view(trade_off={"fpr": [0.0, 1.0], "measured": [0.0, 1.0], "claimed": [0.0]})]).views[0]
    assert audit_plots.trade_off_plot(lopsided) == ""
    assert "<svg" in audit_plots.trade_off_plot(audit().views[0])
    assert audit_plots.leak_plot("table", audit(leaks=[leak(value=None)]).leaks) == ""
    assert audit_plots.cap_plot(()) == audit_plots.detectable_plot(()) == ""
