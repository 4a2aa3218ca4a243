"""The report says the claim in words, loads nothing, escapes everything, and invents no number."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from common.evaluation import Score
from common.evaluation.report import map_facts, neighbor_lists, write_report
from common.evaluation.report.summary import principal_plane
from common.evaluation.report.words import figure, number, risk
from common.table import EmbeddingTable
from tests.common.report._pages import ATTACK, Page, certificate, foreign, numbers_of, observer


def release(**changes: object) -> SimpleNamespace:
    rng = np.random.default_rng(0)
    keys = tuple(f"word{i}" for i in range(400))
    content: dict[str, object] = {
        "tables": {"words": EmbeddingTable(keys, rng.standard_normal((400, 8)).astype(np.float32))},
        "model": {},
        "certificate": certificate(rounds_released=3, public=["the row domain"]),
        "evaluation": [Score("similarity", "spearman", 0.51234, 0.43, 0.59, 201, 0.57, True, "random table", 0.0123)],
        "rounds": [{"round": k, "step_norm": 1.5 / k, "epsilon": {"public": 1.0 * k}} for k in (1, 2, 3)],
        "scenario": {"task": {"family": "spectral"}, "data": {"path": "docs"}, "evaluation": {"neighbors_of": []}},
        "notes": {},
    }
    return SimpleNamespace(**{**content, **changes})


def void(mode: str, reason: str) -> dict[str, object]:
    nobody = {"coordinator": observer(None), "public": observer(None)}
    return certificate(mode=mode, void=True, void_reason=reason, observers=nobody)


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    assert foreign(write_report(release())) == []


def test_the_claim_comes_first_and_infinity_is_said_in_words() -> None:
    text = " ".join(Page(write_report(release())).text)
    assert text.index("What is claimed") < text.index("How good") < text.index("For engineers")
    assert "For anyone but the coordinator, epsilon = 2.996." in text
    assert "not protected" in text
    assert "It is trusted." in text
    assert "finds at most 20.1 % of" in text
    assert "No audit was run" in text
    assert "Other runs on the same data" in text
    assert not re.search(r"\binf\b|Infinity|\bnan\b", text)


@pytest.mark.parametrize(
    ("mode", "reason", "words"),
    [
        ("none", "mode none adds no noise", "This release protects nobody."),
        ("central", "test mode: noise from a public seed", "This certificate is void."),
    ],
)
def test_a_void_release_carries_a_red_banner(mode: str, reason: str, words: str) -> None:
    html = write_report(release(certificate=void(mode, reason)))
    banner = re.search(r'<div class="banner".*?</div>', html, re.DOTALL)
    assert banner is not None
    assert words in banner.group()
    assert reason[1:] in banner.group()
    assert "Everything: nothing in this release is protected" in html
    assert '<div class="banner"' not in write_report(release())


def test_a_certificate_that_says_nothing_is_treated_as_void() -> None:
    html = write_report(release(certificate={}))
    assert '<div class="banner"' in html
    assert "No claim is stated." in html


def test_keys_names_and_notes_are_text_never_markup() -> None:
    keys = (
        ATTACK,
        "$x^2$",
        "$",
        "日本語",
        "",
        " ",
        "\x00\x1b",
        "]]>",
        "<!--",
        "a" * 3000,
        *(f"w{i}" for i in range(20)),
    )
    table = EmbeddingTable(keys, np.random.default_rng(1).standard_normal((len(keys), 4)).astype(np.float32))
    base = release()
    hostile = release(
        tables={"words": table},
        certificate={**base.certificate, "sentence": ATTACK, "unit": ATTACK, "not_covered": [ATTACK]},
        evaluation=[replace(base.evaluation[0], task=ATTACK, metric=ATTACK, baseline_name=ATTACK)],
        rounds=[{"round": 1, ATTACK: 1.0, "epsilon": {ATTACK: 1.0}}],
        scenario={"task": {"family": ATTACK}, "data": {"path": ATTACK}, "evaluation": {"neighbors_of": [ATTACK]}},
        notes={ATTACK: ATTACK},
        model={ATTACK: np.zeros((2, 3), np.float32)},
    )
    page = Page(write_report(hostile))
    assert page.open == []
    assert not {tag for tag, _ in page.tags} & {"script", "img"}
    assert "".join(page.text).count("alert(1)") >= 10


def test_every_number_in_a_table_is_in_a_json_file() -> None:
    """The slow oracle: format every number of the JSON files in every way the page does, and look each cell up."""
    content = release()
    files = [
        content.certificate,
        [score.to_json() for score in content.evaluation],
        neighbor_lists(content.tables, content.scenario),
        map_facts(content.tables),
        list(content.rounds),
        content.scenario,
    ]
    known = {
        f(value) for file in files for value in numbers_of(json.loads(json.dumps(file))) for f in (number, figure, risk)
    }
    cells = [cell for cell in Page(write_report(content)).cells if re.fullmatch(r"[−-]?[\d.,]+(e-?\d+)?", cell)]
    assert len(cells) > 60
    assert [cell for cell in cells if cell not in known] == []


def test_plots_appear_only_for_what_was_recorded() -> None:
    bare = write_report(release(rounds=[], evaluation=[]))
    assert "How it was trained" not in bare
    assert "Not evaluated" in bare
    full = write_report(release(rounds=[{"loss": 1.0, "update_norm_mean": 2.0, "fraction_over_l2_clip_norm": 0.5}] * 3))
    for words in ("Loss on the clients", "norm of the clients", "exceeds the clip"):
        assert words in full
        assert words not in bare


def test_tiny_and_degenerate_tables_are_drawn() -> None:
    tables = {}
    for rows, columns in ((0, 3), (1, 1), (2, 2), (3, 1), (4, 2), (12, 1)):
        keys = tuple(f"k{i}" for i in range(rows))
        tables[f"zeros{rows}"] = EmbeddingTable(keys, np.zeros((rows, columns), np.float32))
    html = write_report(release(tables=tables))
    assert all(f"Table “{name}”" in html for name in tables)


def test_the_same_release_gives_the_same_page() -> None:
    assert write_report(release()) == write_report(release())


def test_a_long_history_shows_both_ends_and_says_so() -> None:
    html = write_report(release(rounds=[{"round": k, "step_norm": 1.0} for k in range(1, 1001)]))
    assert "960 of 1,000 rounds are left out" in html


def test_principal_plane_matches_the_eigenvectors_of_the_covariance() -> None:
    table = release().tables["words"]
    points, share = principal_plane(table)
    rows = table.vectors[:300].astype(np.float64)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    expected = (rows - rows.mean(axis=0)) @ vectors[:, ::-1][:, :2]
    np.testing.assert_allclose(np.abs(points), np.abs(expected), atol=1e-9)
    np.testing.assert_allclose(share, values[::-1][:2] / values.sum())


def test_risk_never_rounds_down() -> None:
    assert risk(2.99591) == "2.996"
    assert risk(3.0) == "3"
    assert risk(20.04, 1) == "20.1"
    assert float(risk(1.00011)) >= 1.00011


def test_neighbor_lists_prefer_the_scenarios_keys() -> None:
    content = release(scenario={"evaluation": {"neighbors_of": ["word7", "absent"]}})
    lists = neighbor_lists(content.tables, content.scenario)["words"]
    assert list(lists) == ["word7"]
    assert len(lists["word7"]) == 8
    assert len(neighbor_lists(content.tables, {})["words"]) == 6
