"""The check that a page needs nothing but itself sees what would need more."""

from __future__ import annotations

import pytest

from tests.common.report._pages import foreign

POLICY = "<meta content=\"default-src 'none'\">"
DRAWING = '<svg><use xlink:href="#m"/><g clip-path="url(#p)"></g></svg>'


def test_a_page_by_itself_passes() -> None:
    assert foreign(f"{POLICY}<style>g {{ fill: url(#p) }}</style><p>words<br></p>{DRAWING}") == []


@pytest.mark.parametrize(
    "broken",
    [
        "<script></script>",
        '<img src="a.png">',
        '<a href="#here"></a>',
        '<p onclick="x"></p>',
        '<svg><use href="http://elsewhere.invalid/x"></use></svg>',
        '<svg><use xlink:href="x.svg"></use></svg>',
        "<style>@import 'x'</style>",
        "<style></style><style>p { background: url(x.png) }</style>",
        '<p style="background: url(http://elsewhere.invalid)"></p>',
        "<p>",
    ],
)
def test_what_a_page_must_not_hold_is_seen(broken: str) -> None:
    assert foreign(POLICY + broken) != []


def test_a_page_without_a_policy_is_seen() -> None:
    assert foreign("<p></p>") == ["no policy"]
