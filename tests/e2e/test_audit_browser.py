"""The audit page in a browser: it asks for nothing, runs nothing, shows its verdict at once, and can be printed.

Needs Chromium or Chrome (``apt-get install chromium``); without one the tests are skipped. Names are not resolved, so
that nothing leaves the machine, and the browser writes down what it would have fetched, and for whom.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from common.evaluation.report.audit_page import write_audit_page
from tests.common.report._audits import audit

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)
NARROW = (380, 800)  # a telephone
ALARM = (0xA1, 0x1D, 0x1D)  # the colour of a violation
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
FOREIGN = (
    '<img src="http://elsewhere.invalid/a.png"><link rel="stylesheet" href="https://elsewhere.invalid/b.css">'
    "<script>addEventListener('load', () => document.getElementById('verdict').remove())</script>"
)


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: what the page asked for, a telephone's first screen, and the print."""

    asked: list[str]
    screen: Path
    print: bytes


def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on PATH")
    return found


def seen(html: str, folder: Path) -> Seen:
    page, log, screen, paper = (folder / name for name in ("page.html", "net.json", "screen.png", "page.pdf"))
    page.write_text(html, encoding="utf-8")
    width, height = NARROW
    where = [f"--user-data-dir={folder / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND", f"--log-net-log={log}"]
    wanted = [f"--window-size={width},{height}", f"--screenshot={screen}", f"--print-to-pdf={paper}"]
    command = [browser(), *QUIET, *where, *wanted, page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert screen.is_file() and paper.is_file(), done.stderr[-2000:]
    return Seen(asked_by_page(json.loads(log.read_text(encoding="utf-8"))), screen, paper.read_bytes())


def asked_by_page(log: dict[str, list[dict[str, dict[str, str]]]]) -> list[str]:
    """Addresses that a page wanted; a request of the browser's own has no origin."""
    starts = [event["params"] for event in log["events"] if "initiator" in event.get("params", {})]
    return [start["url"] for start in starts if start["initiator"] != "not an origin"]


@pytest.fixture(scope="module")
def page() -> str:
    return write_audit_page(audit(outcome="VIOLATION FOUND"))


@pytest.fixture(scope="module")
def shown(page: str, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """The page without its policy, which would keep from the log what the page asks for."""
    html, policies = POLICY.subn("", page)
    assert policies == 1
    return seen(html, tmp_path_factory.mktemp("page"))


def widest_line(screen: Path) -> int:
    """The most pixels in one row of the picture that have the colour of a violation."""
    from matplotlib.image import imread

    pixels = (imread(screen)[:, :, :3] * 255).round()
    return int((pixels == ALARM).all(axis=2).sum(axis=1).max())


def test_the_page_asks_for_nothing(shown: Seen) -> None:
    assert shown.asked == []


def test_the_verdict_is_on_a_telephone_s_first_screen(shown: Seen) -> None:
    assert widest_line(shown.screen) > 0.8 * NARROW[0]  # the frame around it


def test_the_print_has_pages(shown: Seen) -> None:
    assert shown.print.startswith(b"%PDF")
    assert 3 <= len(re.findall(rb"/Type /Page\b(?!s)", shown.print)) <= 20


def test_what_somebody_smuggled_in_is_neither_fetched_nor_run(page: str, tmp_path: Path) -> None:
    guarded = seen(page.replace("</main>", FOREIGN + "</main>"), tmp_path)
    assert guarded.asked == []
    assert widest_line(guarded.screen) > 0.8 * NARROW[0]


def test_a_page_that_asks_and_runs_would_be_noticed(page: str, tmp_path: Path) -> None:
    """The same without the policy: shows that the tests above see something."""
    broken = seen(POLICY.sub("", page).replace("</main>", FOREIGN + "</main>"), tmp_path)
    assert sorted(broken.asked) == ["http://elsewhere.invalid/a.png", "https://elsewhere.invalid/b.css"]
    assert widest_line(broken.screen) < 0.1 * NARROW[0]
