"""Small texts for sites, and the public words that go with them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

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
