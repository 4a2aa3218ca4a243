"""What tests of pages share."""

from __future__ import annotations

import pytest

from common.evaluation.report import audit_plots, plots


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages without their drawings, for tests that look at words."""
    for module in (audit_plots, plots):
        monkeypatch.setattr(module, "svg", lambda *args, **kwargs: "<svg></svg>")
