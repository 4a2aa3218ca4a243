"""Skip-gram against gensim: words a second and similarity scores, on the same corpus with the same two workers.

Both see the same tokens, vocabulary, dimensions, window, negatives, subsampling, learning rate, epochs. Words are raw
words of the corpus, before the vocabulary and subsampling drop any, and the time is that of the whole training call:
for gensim ``train``, for us the start of both worker processes and everything after.
"""

from __future__ import annotations

import json
import lzma
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from statistics import fmean, median

import numpy as np

from common.errors import DataFormatError, DependencyError
from common.evaluation.quality import load as load_task
from common.families.word2vec import CENTRE, Word2VecOptions
from common.table import EmbeddingTable, RowDomain
from common.text import words as words_of
from common.units import Units
from simulations.benchmarks._harness import Row, at_least, data_folder, reported
from simulations.centralized import Schedule, train_centralized

TEXT = "text/novels94.jsonl.xz"
SIMILARITY = ("EN-WS-353-ALL", "EN-SIMLEX-999", "EN-MTurk-287")
SENTENCE_WORDS = 1_000  # a text is cut into sentences of this length, below the 10,000 at which gensim drops words
MIN_COUNT = 5
LEAST_RATIO = 3.0
MOST_LOSS = 0.02


@dataclass(frozen=True)
class Corpus:
    """The same text for both: sentences of words for gensim, rows for us; ``raw_words`` counts every word."""

    sentences: list[list[str]]
    raw_words: int
    domain: RowDomain
    units: Units


@dataclass(frozen=True)
class Trained:
    """What one training gave, and its speed in raw words a second."""

    table: EmbeddingTable
    words_per_s: float


class SkipGram:
    """See the module."""

    name = "skipgram"

    def run(self, quick: bool) -> list[Row]:
        """Full: three seeds of five epochs on 13.6 million words, a quarter of an hour. Quick: a generated corpus."""
        folder = None if quick else data_folder()
        corpus = encoded(novels(folder / TEXT) if folder else planted_text())
        files = [folder / "similarity" / f"{name}.tsv" for name in SIMILARITY] if folder else []
        schedule = Schedule() if folder else Schedule(epochs=2, workers=1)
        peer, ours = [], []
        for seed in range(1 if quick else 3):  # by turns, so that both meet the same load of the machine
            schedule = Schedule(schedule.epochs, schedule.lr, schedule.workers, seed)
            peer.append(train_gensim(corpus, schedule))
            ours.append(train_ours(corpus, schedule))
        return speed_rows(peer, ours, bar=not quick) + list(chain(*(quality_rows(f, peer, ours) for f in files)))


def train_ours(corpus: Corpus, schedule: Schedule) -> Trained:
    """Our kernel with all defaults of the family."""
    start = time.perf_counter()
    parameters = train_centralized(corpus.units, corpus.domain, Word2VecOptions(), schedule)
    seconds = time.perf_counter() - start
    return Trained(EmbeddingTable(corpus.domain.keys, parameters[CENTRE]), corpus.raw_words * schedule.epochs / seconds)


def train_gensim(corpus: Corpus, schedule: Schedule) -> Trained:
    """The peer with the same settings.

    Raises:
        DependencyError: gensim is not installed.
    """
    try:
        from gensim.models import Word2Vec
    except ImportError:
        raise DependencyError("this benchmark needs gensim", remedy="pip install 'fedembed[bench]'") from None
    options = Word2VecOptions()
    model = Word2Vec(
        vector_size=options.dimension,
        window=options.window,
        negative=options.negatives,
        sample=options.subsample,
        min_count=MIN_COUNT,
        sg=1,
        alpha=schedule.lr,
        workers=schedule.workers,
        seed=schedule.seed + 1,
    )
    model.build_vocab(corpus.sentences)
    start = time.perf_counter()
    model.train(corpus.sentences, total_examples=len(corpus.sentences), epochs=schedule.epochs)
    seconds = time.perf_counter() - start
    table = EmbeddingTable(tuple(model.wv.index_to_key), model.wv.vectors)
    return Trained(table, corpus.raw_words * schedule.epochs / seconds)


def speed_rows(peer: list[Trained], ours: list[Trained], *, bar: bool) -> list[Row]:
    """Median speeds, and the median of the ratios by seed."""
    ratio = median(o.words_per_s / p.words_per_s for p, o in zip(peer, ours, strict=True))
    measure = "words a second: fedembed / gensim"
    return [
        reported("gensim, raw words a second", median(t.words_per_s for t in peer)),
        reported("fedembed, raw words a second", median(t.words_per_s for t in ours)),
        at_least(measure, ratio, LEAST_RATIO) if bar else reported(measure, ratio),
    ]


def quality_rows(file: Path, peer: list[Trained], ours: list[Trained]) -> list[Row]:
    """Mean Spearman correlation of both over the seeds, and the difference."""
    task = load_task("similarity")
    theirs, own = (fmean(task.score(t.table, file, seed=0)[0].value for t in side) for side in (peer, ours))
    name = file.stem.removeprefix("EN-")
    return [
        reported(f"{name}: gensim, Spearman", theirs),
        reported(f"{name}: fedembed, Spearman", own),
        at_least(f"{name}: fedembed - gensim", own - theirs, -MOST_LOSS),
    ]


def novels(path: Path) -> Iterator[list[str]]:
    """Words of every text of an xz-compressed JSON-lines file.

    Raises:
        DataFormatError: the file is missing or a line is not what it should be.
    """
    try:
        with lzma.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                yield words_of(json.loads(line)["text"])
    except (OSError, lzma.LZMAError, ValueError, KeyError, TypeError) as error:
        raise DataFormatError(f"cannot read the corpus {path.name}: {error}") from None


def planted_text() -> Iterator[list[str]]:
    """60 generated texts of 500 words, each about one of two topics of 50 words."""
    rng = np.random.default_rng(0)
    words = [chr(97 + i // 26) + chr(97 + i % 26) + "x" for i in range(100)]
    for text in range(60):
        yield [words[2 * i + text % 2] for i in rng.integers(50, size=500)]


def encoded(texts: Iterable[list[str]]) -> Corpus:
    """Cut texts into sentences, count the words, and encode what comes ``MIN_COUNT`` times or more."""
    known: dict[str, str] = {}  # one object a word: millions of equal strings would fill the memory
    counts: Counter[str] = Counter()
    sentences = []
    for text in texts:
        words = [known.setdefault(word, word) for word in text]
        counts.update(words)
        sentences += [words[i : i + SENTENCE_WORDS] for i in range(0, len(words), SENTENCE_WORDS)]
    frequent = [(word, count) for word, count in counts.most_common() if count >= MIN_COUNT]
    domain = RowDomain(tuple(word for word, _ in frequent), np.array([count for _, count in frequent], dtype=float))
    rows = [np.array([domain.row_of[w] for w in s if w in domain.row_of], dtype=np.int32) for s in sentences]
    lengths = np.array([len(r) for r in rows])
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    number = np.repeat(np.arange(len(rows), dtype=np.int32), lengths)
    units = Units(offsets, {"rows": np.concatenate(rows), "sentence": number})
    return Corpus(sentences, sum(counts.values()), domain, units)


BENCHMARK = SkipGram()
