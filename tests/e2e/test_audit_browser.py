"""The audit page in a browser: it asks for nothing, complains of nothing, draws every picture, and prints on A4.

Needs Chromium or Chrome (``apt-get install chromium``); without one the tests are skipped. Names are not resolved, so
that nothing leaves the machine, and the browser writes down what it would have fetched, and for whom. The page runs no
scripts; what the browser made of it is told by a script that the tests add to a copy without the page's policy.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from common.evaluation.report.audit_page import write_audit_page
from tests.common.report._audits import audit

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--enable-logging=stderr"),
)
NARROW = (380, 800)  # a telephone
ALARM = (0xA1, 0x1D, 0x1D)  # the colour of a violation
CONSOLE = re.compile(r'CONSOLE[^\]]*\] "(.*)", source:')
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
PICTURES = 9  # two trade-offs, caps, detectable errors, two sights of leaks, epsilon over rounds, quality, the map
LEAST_SIDE = 100  # CSS pixels
A4 = "<style>@page { size: A4 }</style>"  # the page leaves the choice of paper to whoever prints
A4_POINTS = (595, 842)
MOST_PAGES = 8  # of the made-up audit: pictures two abreast, tables without a page each
MEASURE = """<script>
const boxes = [...document.querySelectorAll("svg")].map((svg) => {
  const outer = svg.getBoundingClientRect(), inner = svg.getBBox();
  return [outer.width, outer.height, inner.width, inner.height];
});
const root = document.documentElement;
console.log("MEASURED " + JSON.stringify({ boxes, wide: root.scrollWidth - root.clientWidth }));
</script>"""
FOREIGN = (
    '<img src="http://elsewhere.invalid/a.png"><link rel="stylesheet" href="https://elsewhere.invalid/b.css">'
    "<script>addEventListener('load', () => document.getElementById('verdict').remove())</script>"
)


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: what it asked for, a telephone's first screen, the print, the console."""

    asked: list[str]
    screen: Path
    print: bytes
    console: list[str]

    @property
    def complaints(self) -> list[str]:
        """What the console holds that the tests' own script did not write."""
        return [line for line in self.console if not line.startswith("MEASURED ")]

    @property
    def measured(self) -> dict[str, Any]:
        """Sizes in CSS pixels: ``boxes`` of the drawings, outside and of what is in them; ``wide``, overflow."""
        (told,) = [line for line in self.console if line.startswith("MEASURED ")]
        found: dict[str, Any] = json.loads(told.removeprefix("MEASURED "))
        return found


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
    console = [line.replace('\\"', '"') for line in CONSOLE.findall(done.stderr)]
    return Seen(asked_by_page(json.loads(log.read_text(encoding="utf-8"))), screen, paper.read_bytes(), console)


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
    html = html.replace("</head>", A4 + "</head>").replace("</body>", MEASURE + "</body>")
    return seen(html, tmp_path_factory.mktemp("page"))


def undrawn(boxes: list[list[float]]) -> list[list[float]]:
    """Drawings that are too small to be seen, or have nothing in them."""
    return [box for box in boxes if min(box[:2]) < LEAST_SIDE or min(box[2:]) <= 0]


def pages(print_: bytes) -> int:
    return len(re.findall(rb"/Type /Page\b(?!s)", print_))


def widest_line(screen: Path) -> int:
    """The most pixels in one row of the picture that have the colour of a violation."""
    from matplotlib.image import imread

    pixels = (imread(screen)[:, :, :3] * 255).round()
    return int((pixels == ALARM).all(axis=2).sum(axis=1).max())


def test_the_page_asks_for_nothing(shown: Seen) -> None:
    assert shown.asked == []


def test_the_verdict_is_on_a_telephone_s_first_screen(shown: Seen) -> None:
    assert widest_line(shown.screen) > 0.8 * NARROW[0]  # the frame around it


def test_the_console_is_silent(shown: Seen) -> None:
    assert shown.complaints == []


def test_every_picture_has_a_size(page: str, shown: Seen) -> None:
    boxes = shown.measured["boxes"]
    assert len(boxes) == page.count("<svg") == PICTURES
    assert undrawn(boxes) == []


def test_nothing_on_the_page_is_wider_than_a_narrow_screen(shown: Seen) -> None:
    assert shown.measured["wide"] <= 0


def test_the_print_is_a4_and_short(shown: Seen) -> None:
    assert shown.print.startswith(b"%PDF")
    assert 3 <= pages(shown.print) <= MOST_PAGES
    boxes = re.findall(rb"/MediaBox \[0 0 ([\d.]+) ([\d.]+)\]", shown.print)
    assert {(round(float(width)), round(float(height))) for width, height in boxes} == {A4_POINTS}


def test_a_page_without_its_drawings_and_style_would_be_noticed(page: str, tmp_path: Path) -> None:
    """The broken version: drawings that are empty, a table that does not scroll, a page break before every line."""
    empty = re.sub(r"<svg.*?</svg>", "<svg></svg>", POLICY.sub("", page), count=1, flags=re.DOTALL)
    style = "<style>.scroll { overflow: visible; width: 900px } @media print { li { break-before: page } }</style>"
    noise = "<script>console.error('it went wrong')</script>"
    broken = seen(empty.replace("</head>", f"{style}</head>").replace("</body>", noise + MEASURE + "</body>"), tmp_path)
    assert len(undrawn(broken.measured["boxes"])) == 1
    assert broken.measured["wide"] > 0
    assert broken.complaints == ["it went wrong"]
    assert pages(broken.print) > MOST_PAGES


def test_what_somebody_smuggled_in_is_neither_fetched_nor_run(page: str, tmp_path: Path) -> None:
    guarded = seen(page.replace("</main>", FOREIGN + "</main>"), tmp_path)
    assert guarded.asked == []
    assert widest_line(guarded.screen) > 0.8 * NARROW[0]


def test_a_page_that_asks_and_runs_would_be_noticed(page: str, tmp_path: Path) -> None:
    """The same without the policy: shows that the tests above see something."""
    broken = seen(POLICY.sub("", page).replace("</main>", FOREIGN + "</main>"), tmp_path)
    assert sorted(broken.asked) == ["http://elsewhere.invalid/a.png", "https://elsewhere.invalid/b.css"]
    assert widest_line(broken.screen) < 0.1 * NARROW[0]
