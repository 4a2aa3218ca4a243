"""The page of an audit: verdict first, nothing loaded, everything escaped, every number of the record and no other."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common.evaluation.report import audit_record
from common.evaluation.report.audit_page import write_audit_page
from common.evaluation.report.audit_record import AuditRecord, schema
from common.evaluation.report.words import downward, figure, number, risk, upward
from tests.common.report._audits import (
    RECORDS,
    UNPICTURED,
    audit,
    audit_of_release,
    drawn,
    first_part,
    leak,
    line,
    view,
)
from tests.common.report._pages import ATTACK, Page, certificate, foreign, numbers_of, text_of

OUTCOMES = ("CONSISTENT", "VIOLATION FOUND", "INCONCLUSIVE")


@pytest.mark.parametrize("kind", RECORDS)
def test_the_page_is_well_formed_and_loads_nothing(kind: str) -> None:
    assert foreign(drawn(kind)) == []


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_verdict_comes_first_and_is_one_of_three(outcome: str, undrawn: None) -> None:
    html = write_audit_page(audit(outcome=outcome, reason="because of <this>"))
    text = text_of(html)
    box = re.search(r'<div class="verdict (\w+)".*?</div>', html, re.DOTALL)
    assert box is not None and f"<strong>{outcome}</strong>" in box.group()
    assert "Because of &lt;this&gt;." in box.group()
    assert "rivate" not in box.group() and "safe" not in box.group()
    parts = (outcome, "What was claimed", "For whom", "Against whom", "What was tried", "What was found")
    start = text.index("fedembed audit of")
    places = [text.index(part, start) for part in (*parts, "What is not covered", "In pictures", "For engineers")]
    assert places == sorted(places)


def test_the_first_part_answers_in_plain_words() -> None:
    words = first_part(drawn("scenario"))
    for said in (
        "For anyone but the coordinator, epsilon = 2.996.",
        "Protected is one record: add or remove one unit.",
        "It is trusted.",  # what the claim says about the coordinator
        "20.1 %",  # singled out at most: 0.20091, rounded up
        "4.1 %",  # canaries found: 0.04012, rounded up
        "found 41.1 % without protection, 2 % in the audited run",
        "the sums of all rounds (1,000 canaries), and the final table (1,000)",
        "All 2 tests of the mechanism hold.",
        "0 of 2 kinds of attack on what the claim speaks about found more than guessing does; of row support it is not "
        "known.",
        "1 of 1 kinds of attack on what no such claim promises to hide found more than guessing does: inversion.",
        "Other runs on the same data",
        "1 more had nothing to look at",
    ):
        assert said in words, said


def test_a_violation_names_what_does_not_hold(undrawn: None) -> None:
    broken = {"test": "T2", "subject": "table bias", "statistic": "sd ratio 0, p = 0", "holds": False}
    record = audit(outcome="VIOLATION FOUND", conformance=[broken, *audit().model_dump()["conformance"]])
    words = first_part(write_audit_page(record))
    assert "1 of 3 tests of the mechanism do not hold: T2 table bias (sd ratio 0, p = 0)." in words
    assert "Do not release" in words
    assert "hold." not in words.split("What was found")[1].split("do not hold")[0]


def test_a_view_shows_the_error_that_all_its_designs_notice(undrawn: None) -> None:
    found = {}
    for factor in (None, 2.5):
        tests = [line(detectable=1.41), line(design="alternating", detectable=factor)]
        found[factor] = first_part(write_audit_page(audit(views=[view(tests=tests, noticed=factor)])))
    assert "none noticed" in found[None] and "1.41 ×" not in found[None]
    assert "2.5 ×" in found[2.5] and "1.41 ×" not in found[2.5]


def test_designs_that_only_add_alarms_say_so(undrawn: None) -> None:
    for supplementary in (True, False):
        html = write_audit_page(audit(views=[view(tests=[line(supplementary=supplementary)])]))
        assert ("adds alarms alone" in text_of(html)) == supplementary


def test_an_attack_is_judged_by_the_figure_farthest_above_guessing(undrawn: None) -> None:
    mild = leak(metric="f1", value=0.5, ci_low=0.49, ci_high=0.51, chance_value=0.5)
    bad = leak(metric="auc", value=0.9, ci_low=0.88, ci_high=0.92, chance_value=0.5)
    for leaks in ([mild, bad], [bad, mild]):
        words = first_part(write_audit_page(audit(leaks=leaks)))
        assert (
            "1 of 1 kinds of attack on what the claim speaks about found more than guessing does: membership." in words
        )
        assert "0.900" in words and "0.510" not in words


def test_a_release_without_canaries_says_so() -> None:
    html = drawn("release")
    words = first_part(html)
    assert "None: whether noise was added was not tested." in words
    assert "About the noise nothing" in words
    assert "on an unprotected run" not in words
    assert "not tested" in words
    assert "checks of the folder" in words


def test_an_audit_that_found_nothing_to_do_is_a_page_too(undrawn: None) -> None:
    bare = {"sentence": "No claim is stated.", "certificate": {}}
    record = audit_of_release(
        leaks=[], not_run=[], conformance=[], settings={}, not_covered=[], claim=bare, **UNPICTURED
    )
    html = write_audit_page(record)
    assert Page(html).open == []
    assert "In pictures" not in html
    assert "The certificate is void." in html


@pytest.mark.parametrize(("mode", "words"), [("none", "Nothing is claimed."), ("central", "The certificate is void.")])
def test_a_void_claim_carries_a_banner(mode: str, words: str, undrawn: None) -> None:
    void = {**certificate(), "mode": mode, "void": True, "void_reason": "test mode: noise from a public seed"}
    html = write_audit_page(audit(claim={"sentence": "void", "certificate": void}))
    banner = re.search(r'<div class="banner".*?</div>', html, re.DOTALL)
    assert banner is not None and words in banner.group() and "Test mode" in banner.group()
    assert '<div class="banner"' not in write_audit_page(audit())


def hostile(value: Any, name: str = "") -> Any:
    """The same record with markup for every text, and for every key of what has no fixed fields."""
    fixed = {"outcome", "kind", "view", "cap", "void", "run", "epsilon"}
    if isinstance(value, dict):
        free = name in ("scenario", "settings", "task", "data", "event")
        return {(ATTACK if free and not isinstance(v, dict) else k): hostile(v, k) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [hostile(item, name) for item in value]
    return ATTACK if isinstance(value, str) and name not in fixed else value


@pytest.mark.parametrize("kind", RECORDS)
def test_names_and_reasons_are_text_never_markup(kind: str) -> None:
    record = AuditRecord.model_validate(hostile(RECORDS[kind]().model_dump(mode="json")))
    html = write_audit_page(record)  # drawn: the drawings hold names too
    page = Page(html)
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert "<script" not in html and "<img" not in html
    assert "".join(page.text).count("alert(1)") >= 25


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["", "inf", ATTACK]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["epsilon", "first", "x"]), inner),
    max_leaves=4,
)


@pytest.mark.parametrize("target", [-5.0, -1e300, 0.0, 5e-324, 1e-9, 1e12, 1.7e308])
def test_a_budget_that_is_none_is_not_drawn(target: float) -> None:
    forged = {**certificate(), "target_epsilon": target}
    html = write_audit_page(audit_of_release(claim={"sentence": "?", "certificate": forged}, leaks=[]))
    assert Page(html).open == []


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([*certificate(), "epsilon", "tpr_at_fpr", "reason", "event", "second_opinion"]), JSON_VALUES)
def test_a_forged_certificate_is_shown_and_breaks_nothing(name: str, value: Any) -> None:
    forged = certificate()
    place = forged if name in forged else forged["observers"]["public"]
    place[name] = value
    html = write_audit_page(audit_of_release(claim={"sentence": "?", "certificate": forged}, leaks=[]))
    assert Page(html).open == []


FORMATS = (number, figure, upward, downward, risk, str, lambda x: upward(x, 2), lambda x: f"{risk(x, 2)} ×")
CELL = r"[−-]?[\d.,]+(e-?\d+)?( ×| %)?"


def test_every_number_in_a_table_is_in_the_record() -> None:
    """The slow oracle: format every number of the record in every way the page does, and look each cell up."""
    record = audit()
    found = numbers_of(json.loads(record.model_dump_json()))
    known = {f(x) for x in found for f in FORMATS} | {f"{risk(100.0 * x, 1)} %" for x in found}
    cells = [cell.strip() for cell in Page(drawn("scenario")).cells]
    cells = [cell for cell in cells if re.fullmatch(CELL, cell)]
    assert len(cells) > 100
    assert [cell for cell in cells if cell not in known] == []


def test_every_number_of_the_record_is_on_the_page() -> None:
    """Coordinates of the map alone are drawn and not told."""
    stated = json.loads(audit().model_dump_json())
    del stated["map"]["x"], stated["map"]["y"]
    text, known = text_of(drawn("scenario")), (*FORMATS, lambda x: number(100 * x))
    assert [x for x in numbers_of(stated) if not any(f(x) in text for f in known)] == []


@settings(max_examples=50, deadline=None)
@given(st.floats(-1e6, 1e6), st.integers(1, 4))
def test_rounding_shrinks_no_risk_and_raises_no_comfort(value: float, decimals: int) -> None:
    up, down = (float(f(value, decimals).replace("−", "-")) for f in (upward, downward))
    slack, step = 1e-12 * abs(value) + 1e-15, 10.0**-decimals
    assert up >= value - slack and down <= value + slack
    assert up - value < step * (1 + 1e-9) + slack and value - down < step * (1 + 1e-9) + slack
    assert upward(up, decimals) == downward(up, decimals) == f"{up:.{decimals}f}".replace("-", "−")


def test_rounding_to_the_nearest_would_shrink_a_risk() -> None:
    """What the page's figures would be without care: the broken version of the rule above."""
    assert float(figure(2.0004)) < 2.0004 <= float(upward(2.0004))
    assert float(figure(0.0116)) > 0.0116 >= float(downward(0.0116))


def test_missing_and_unlimited_figures_have_words(undrawn: None) -> None:
    assert [f(None) for f in (upward, downward)] == ["–", "–"]
    assert [f("inf") for f in (upward, downward)] == ["unlimited", "unlimited"]
    html = write_audit_page(audit(views=[view(auc=None, auc_interval=None, tpr_at_fpr={}, trade_off={})]))
    assert not re.search(r"\bNone\b|\bnan\b|\binf\b|Infinity", text_of(html).replace("None of", ""))
    assert "too few" in first_part(html)


def test_json_keeps_what_is_unlimited_apart_from_what_is_unknown() -> None:
    test = audit_record.TestLine.model_validate(line(cap=math.inf, bound=math.nan))
    read = json.loads(test.model_dump_json())
    assert (read["cap"], read["bound"]) == ("inf", None)
    assert audit_record.TestLine.model_validate(read) == test
    for broken in ({"bound": -math.inf}, {"alpha": math.nan}, {"alpha": math.inf}, {"cap": "many"}):
        with pytest.raises(ValidationError):
            audit_record.TestLine.model_validate(line(**broken))


def test_a_record_survives_its_json() -> None:
    assert AuditRecord.model_validate_json(audit().model_dump_json()) == audit()


def test_the_published_schema_is_the_record_s(root: Path) -> None:
    published = (root / "docs" / "audit.schema.json").read_text(encoding="utf-8")
    assert json.loads(published) == json.loads(schema()) == AuditRecord.model_json_schema()


def test_the_same_record_gives_the_same_page() -> None:
    assert write_audit_page(audit()) == drawn("scenario")


def test_the_page_rounds_risk_up_and_comfort_down(undrawn: None) -> None:
    """On the page itself: of each figure the nearest three decimals would lie on the comforting side."""
    test = line(bound=1.2341, estimate=1.7891, cap=6.5237, attainable=1.6737, detectable=1.411)
    risky = leak(value=0.0191, ci_high=0.0331, chance_value=0.0116, control_value=0.4101)
    cells = Page(write_audit_page(audit(views=[view(tests=[test], auc=0.7021)], leaks=[risky]))).cells
    assert {"1.235", "1.790", "6.523", "1.673", "1.42", "0.020", "0.011", "0.411"} <= set(cells)
    assert not {"1.234", "1.789", "6.524", "1.674", "1.41", "0.019", "0.012", "0.410"} & set(cells)
    assert any(cell.startswith("0.703, 95 % interval") for cell in cells)
