"""What the report says about tables and claims; the release stores the same numbers in evaluation.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.table import EmbeddingTable

NEIGHBORS = 8
LISTS = 6
MAP_ROWS = 300


def neighbor_lists(
    tables: Mapping[str, EmbeddingTable], scenario: Mapping[str, Any]
) -> dict[str, dict[str, list[list[Any]]]]:
    """Table -> key -> up to eight [neighbour, cosine]; keys are the scenario's, else six spread over the first rows."""
    wanted = scenario.get("evaluation", {}).get("neighbors_of", ())
    found = {}
    for name, table in tables.items():
        keys = [key for key in wanted if key in table.row_of] or _spread(table)
        found[name] = {key: [[other, cosine] for other, cosine in table.neighbors(key, NEIGHBORS)] for key in keys}
    return found


def _spread(table: EmbeddingTable) -> list[str]:
    """Keys spread over the first rows, which are the most frequent ones wherever frequencies are public."""
    rows = np.linspace(0, min(len(table), MAP_ROWS) - 1, num=min(LISTS, len(table)), dtype=int)
    return [table.keys[row] for row in rows]


def principal_plane(table: EmbeddingTable) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The first rows on the two directions in which they vary most.

    Returns:
        Coordinates, shape (R, 2) with R at most 300, and the share of the variance on each axis, shape (2,).
    """
    rows = table.vectors[:MAP_ROWS].astype(np.float64)
    centred = rows - rows.mean(axis=0) if len(rows) else rows
    left, scale, _ = np.linalg.svd(centred, full_matrices=False)
    points = np.zeros((len(rows), 2))
    points[:, : len(scale[:2])] = (left * scale)[:, :2]
    total = float(np.sum(scale**2))
    share = np.zeros(2)
    if total > 0:
        share[: len(scale[:2])] = scale[:2] ** 2 / total
    return points, share


def map_facts(tables: Mapping[str, EmbeddingTable]) -> dict[str, dict[str, Any]]:
    """Table -> rows on the map and the share of their variance that its two axes hold."""
    return {
        name: {"rows": min(len(table), MAP_ROWS), "variance_share": float(principal_plane(table)[1].sum())}
        for name, table in tables.items()
    }
