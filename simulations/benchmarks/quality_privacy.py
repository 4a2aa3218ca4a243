"""What privacy costs: figures at epsilon 8, 3, 1 and without, with 95 % intervals, beside baselines that know nothing.

Text: 94 novels of 33 authors, delta 1e-6. Interactions: a generated population of 20,000 users and MovieLens
latest-small, full ranking of one held-out item a user, delta 1e-5. A figure is one run with seeded noise; its interval
says how far the benchmark's pairs or users could move it, not how far another draw of noise could. At epsilon 8 the
whole interval has to lie above the baseline; the last rows say down to which epsilon it does.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from simulations.benchmarks import _privacy_recommendation, _privacy_text
from simulations.benchmarks._harness import Row, unjudged
from simulations.benchmarks._scored import rows_of
from simulations.benchmarks._texts import generated, novels


class QualityPrivacy:
    """See the module."""

    name = "quality_privacy"

    def run(self, quick: bool) -> list[Row]:
        """Train and score every method at every epsilon; ``quick``: generated data at epsilon 8, and no bar."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            text = generated(folder) if quick else novels(folder)
            found = _privacy_text.figures(text, folder, quick=quick)
            found += _privacy_recommendation.figures(folder, quick=quick)
        return unjudged(rows_of(found)) if quick else rows_of(found)


BENCHMARK = QualityPrivacy()
