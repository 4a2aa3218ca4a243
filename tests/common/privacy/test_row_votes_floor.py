"""The least number of contributors of a row acts on a noised count: what passes below it, as the documents say."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
from scipy import special

from common.privacy import selected_rows
from tests.common.privacy.test_row_votes import made, summed, terms


def test_rows_below_the_floor_pass_by_chance_as_often_as_is_said() -> None:
    """docs/protocol.md: Q((t - v + tau s) / (s sqrt(n / (T - c)))). Of the rows with one vote fewer than the floor, and
    of those with none; the law without the survivors' noise, and that of a floor on true votes, do not pass."""
    rows, floor, tau, survivors, honest = 8_000, 6, 1.0, 40, 28
    grid = made(noise=6.0, threshold=tau, rows=rows, min_contributors=floor, max_selected_rows=rows)
    votes = np.zeros((survivors, rows), np.int64)
    votes[: floor - 1, : rows // 2] = 1
    any_number = replace(grid, terms=terms(rows, rows_per_client=rows))  # so that few clients vote for many rows
    selected = selected_rows.selected_rows(grid, summed(any_number, list(votes)))
    for low, high, cast in ((0, rows // 2, floor - 1), (rows // 2, rows, 0)):
        share = np.count_nonzero((selected >= low) & (selected < high)) / (rows // 2)
        s = 6.0 * math.sqrt(5)
        said = float(special.ndtr(-(floor - cast + tau * s) / (s * math.sqrt(survivors / honest))))
        accounted = float(special.ndtr(-(floor - cast + tau * s) / s))
        error = 4 * math.sqrt(said * (1 - said) / (rows // 2)) + 0.005  # counts are whole numbers
        assert abs(share - said) < error < abs(share - accounted)
        assert share > error, "a floor on true votes would pass none"
