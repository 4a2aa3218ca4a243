"""What both pages' tests share: a reader of HTML, the check that a page needs nothing but itself, a certificate."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

ATTACK = '"><script>alert(1)</script><img src=x onerror=alert(2)>'
_FOREIGN = {"script", "link", "img", "iframe", "object", "embed", "form", "base", "a", "image"}
_ADDRESSES = ("src", "href", "xlink:href")


class Page(HTMLParser):
    """Collects tags and visible text; knows what closes what."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.cells: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "br"):
            self.open.append(tag)
        if tag == "td":
            self.cells.append("")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text.append(data)
        if "td" in self.open:
            self.cells[-1] += data


def text_of(html: str) -> str:
    """The visible text, spaces made one."""
    return re.sub(r"\s+", " ", " ".join(Page(html).text))


def foreign(html: str) -> list[str]:
    """What a page would run or load from elsewhere, or where it is not well formed; empty for a page by itself."""
    page = Page(html)
    found = [f"<{tag}> is not closed" for tag in page.open]
    found += [f"<{tag}>" for tag, _ in page.tags if tag in _FOREIGN]
    for _, attributes in page.tags:
        found += [name for name in attributes if name.startswith("on")]
        found += [f"{n}={v}" for n, v in attributes.items() if n in _ADDRESSES and not (v or "").startswith("#")]
    styles = "".join(re.findall(r"<style.*?</style>", html, re.DOTALL))
    styles += "".join(attributes.get("style") or "" for _, attributes in page.tags)
    found += re.findall(r"url\((?!#)|@import", styles)
    return found if "default-src 'none'" in html else [*found, "no policy"]


def observer(epsilon: float | None) -> dict[str, Any]:
    """What a certificate says about somebody; ``None`` where nothing protects."""
    return {
        "epsilon": epsilon,
        "reason": None if epsilon else "it is trusted",
        "tpr_at_fpr": {"0.01": 0.20091} if epsilon else None,
        "event": {"event": "gaussian", "noise_multiplier": 2.676455} if epsilon else {"event": "non_private"},
        "second_opinion": {"lower": 2.98101, "estimate": 2.99202, "upper": 3.01303} if epsilon else None,
    }


def certificate(**changes: Any) -> dict[str, Any]:
    """Of records, in mode central: the coordinator is trusted."""
    return {
        "sentence": "For anyone but the coordinator, epsilon = 2.996.",
        "mode": "central",
        "void": False,
        "void_reason": None,
        "unit": "record",
        "unit_is_client": False,
        "adjacency": "add or remove one unit",
        "delta": 1e-6,
        "target_epsilon": 3.0,
        "observers": {name: observer(2.99591) for name in ("other_clients", "public")}
        | {"coordinator": observer(None)},
        "accountants": {"first": {"name": "PLD"}},
        "not_covered": ["other runs on the same data"],
        **changes,
    }


def numbers_of(value: Any) -> list[float]:
    """Every number of a JSON value."""
    if isinstance(value, dict):
        return [n for item in value.values() for n in numbers_of(item)]
    if isinstance(value, list):
        return [n for item in value for n in numbers_of(item)]
    return [value] if isinstance(value, (int, float)) and not isinstance(value, bool) else []
