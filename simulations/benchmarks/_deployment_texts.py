"""Small texts for sites, the public words that go with them, and a small run over them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.config import Scenario, build_scenario
from simulations import corpora

RECORDS_APART = 30


def generated_texts(folder: Path, names: Sequence[str]) -> tuple[dict[str, Path], Path]:
    """A generated text a site, and a file of the public words."""
    folder.mkdir()
    records = [record.value for record in corpora.load("planted")]
    texts = {name: folder / f"{name}.txt" for name in names}
    for k, path in enumerate(texts.values()):
        path.write_text("\n".join(records[k :: max(RECORDS_APART, len(names))]) + "\n")
    words = folder / "words.tsv"
    words.write_text("".join(f"{w}\t{n}\n" for w, n in corpora.vocabulary("planted").items()))
    return texts, words


def small_scenario(mode: str, vocabulary: Path, federation: dict[str, Any]) -> Scenario:
    """What the sites are asked to train: next to nothing, with seeded noise, because nothing is claimed."""
    return build_scenario(
        {
            "task": {"family": "word2vec", "dimension": 8, "shared_negatives": 16},
            "data": {"reader": "text", "path": "of-each-site", "unit": "client"},
            "vocabulary": {"path": str(vocabulary)},
            "privacy": {"mode": mode, "noise_multiplier": 4.0, "l2_clip_norm": 1.0, "test_mode": True},
            "federation": federation,
            "training": {"local_steps": 2, "batch_size": 8},
        }
    )
