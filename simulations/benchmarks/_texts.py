"""The texts that quality is measured on: novels by author with word benchmarks; a generated stand-in for --quick."""

from __future__ import annotations

import gzip
import json
import lzma
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from common.errors import DataError
from common.text import words
from simulations import corpora
from simulations.benchmarks._harness import data_folder
from simulations.corpora.planted import TOPICS

NOVELS = "text/novels94.jsonl.xz"
PUBLIC_TEXTS = ("text/enwiki_sample_pages.jsonl.xz", "text/wikitext2_valid_test.jsonl.gz")
ANALOGIES = "similarity/questions-words.txt.gz"
SIMILARITY = {
    "WordSim-353": "similarity/EN-WS-353-ALL.tsv",
    "SimLex-999": "similarity/EN-SIMLEX-999.tsv",
    "RG-65": "similarity/EN-RG-65.tsv",
    "MTurk-287": "similarity/EN-MTurk-287.tsv",
}
PASSAGE = 15  # sentences
MIN_COUNT = 5
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Text:
    """A corpus on disk, and what its tables are scored on.

    Attributes:
        path: JSON lines with ``author``, ``passage``, ``part`` and ``text``: one sentence each.
        words: ``word<TAB>count``, most frequent first, at least ``MIN_COUNT`` times. The benchmark takes these counts
            to be public; a deployment brings a public list instead.
        similarity: name of a word-pair benchmark -> its file.
        analogies: a ``questions-words`` file, or ``None``.
        public: other text, one a line, for the task ``cooccurrence``; or ``None``.
    """

    path: Path
    words: Path
    similarity: dict[str, Path]
    analogies: Path | None
    public: Path | None

    def sections(self, unit: str, rows: int) -> dict[str, Any]:
        """``[data]`` and ``[vocabulary]``: an author is a client; ``unit`` is record (a sentence), passage or part."""
        return {
            "data": {"reader": "text", "path": str(self.path), "client_key": ["author"], "unit": unit},
            "vocabulary": {"path": str(self.words), "max_rows": rows},
        }


def novels(folder: Path, parts: int = 1) -> Text:
    """Write the 94 novels of 33 authors to ``folder``, one sentence a line (634,450), 15 of a novel a passage.

    Line ends inside a novel are blanks here: some editions wrap their lines and others do not. A sentence ends after
    ``.``, ``!`` or ``?`` before a blank.

    Args:
        parts: ``part`` numbers the shares of equal size into which every author's sentences are cut.

    Raises:
        DataError: the development data are not there.
    """
    data = data_folder()
    authors: dict[str, list[tuple[str, str]]] = {}
    for novel in _objects(data / NOVELS):
        shelf = authors.setdefault(novel["author"], [])
        shelf.extend((f"{novel['title']}-{n // PASSAGE}", sentence) for n, sentence in enumerate(_sentences(novel)))
    counts = Counter(word for shelf in authors.values() for _, sentence in shelf for word in words(sentence))
    return Text(
        path=_written(authors, parts, folder / "novels.jsonl"),
        words=_written_words(counts, folder),
        similarity={name: data / file for name, file in SIMILARITY.items()},
        analogies=data / ANALOGIES,
        public=_public_lines([data / name for name in PUBLIC_TEXTS], folder),
    )


def generated(folder: Path, parts: int = 1) -> Text:
    """Write the ``planted`` corpus to ``folder``; words of one topic are alike (10), words of two are not (0)."""
    authors: dict[str, list[tuple[str, str]]] = {}
    for number, record in enumerate(corpora.load("planted")):
        authors.setdefault(record.client, []).append((str(number // PASSAGE), record.value))
    pairs = [(a, b, 10) for topic in TOPICS for a, b in combinations(topic, 2)]
    pairs += [(a, b, 0) for one, two in combinations(TOPICS, 2) for a, b in zip(one, two, strict=True)]
    judged = folder / "topics.tsv"
    judged.write_text("".join(f"{a}\t{b}\t{judgement}\n" for a, b, judgement in pairs), encoding="utf-8")
    counts = Counter({word: round(count) for word, count in corpora.vocabulary("planted").items()})
    path = _written(authors, parts, folder / "planted.jsonl")
    return Text(path, _written_words(counts, folder), {"topics": judged}, None, None)


def _sentences(novel: Mapping[str, str]) -> Iterator[str]:
    return (piece for piece in _SENTENCE_END.split(" ".join(novel["text"].split())) if words(piece))


def _written(authors: Mapping[str, Sequence[tuple[str, str]]], parts: int, path: Path) -> Path:
    """One sentence a line, with its author, passage and part."""
    with path.open("w", encoding="utf-8") as out:
        for author, sentences in authors.items():
            for number, (passage, sentence) in enumerate(sentences):
                part = number * parts // len(sentences)
                line = {"author": author, "passage": passage, "part": part, "text": sentence}
                out.write(json.dumps(line) + "\n")
    return path


def _written_words(counts: Counter[str], folder: Path) -> Path:
    path = folder / "words.tsv"
    lines = (f"{word}\t{count}\n" for word, count in counts.most_common() if count >= MIN_COUNT)
    path.write_text("".join(lines), encoding="utf-8")
    return path


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of a compressed file of lines."""
    opened = lzma.open if path.suffix == ".xz" else gzip.open
    try:
        with opened(path, "rt", encoding="utf-8") as lines:
            yield from map(json.loads, lines)
    except OSError as error:
        raise DataError(f"cannot read {path.name} of the benchmark data: {error.strerror}") from None


def _public_lines(sources: Sequence[Path], folder: Path) -> Path:
    """Paragraphs of encyclopaedia articles, one a line."""
    path = folder / "public.txt"
    with path.open("w", encoding="utf-8") as out:
        for source in sources:
            for article in _objects(source):
                out.writelines(line + "\n" for line in article["text"].splitlines() if line.strip())
    return path
