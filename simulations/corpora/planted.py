"""A small generated corpus with planted topics: tests and offline examples can know what a table must find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from common.units import Record

TOPICS = (
    ("river", "boat", "bridge", "water", "fish", "bank", "stream", "shore"),
    ("bread", "flour", "oven", "butter", "dough", "baker", "crust", "yeast"),
    ("engine", "wheel", "road", "brake", "driver", "fuel", "gear", "traffic"),
    ("star", "planet", "orbit", "comet", "moon", "galaxy", "telescope", "sky"),
    ("violin", "piano", "melody", "drum", "singer", "chord", "concert", "rhythm"),
    ("forest", "tree", "leaf", "root", "branch", "moss", "bird", "shade"),
)
FILLER = ("the", "of", "and", "with", "near", "before", "small", "seen")
CLIENTS = 20
UNITS_PER_CLIENT = 100
_TOPIC_WORDS = 6
_FILLER_WORDS = 6
_STRAY_WORDS = 1
_SEED = 20_240


class Planted:
    """``planted``: a unit has six words of one topic, six filler words and one word of any topic.

    A client prefers two of the topics (four units in five), so that clients differ as real ones do.
    """

    unit = "record"

    def records(self) -> Iterator[Record]:
        """2,000 units of 13 words from 20 clients; the same ones on every call and machine."""
        rng = np.random.default_rng(_SEED)
        everything = [word for topic in TOPICS for word in topic]
        for client in range(CLIENTS):
            for unit in range(UNITS_PER_CLIENT):
                preferred = (client + int(rng.integers(2))) % len(TOPICS)
                topic = TOPICS[preferred if rng.random() < 0.8 else int(rng.integers(len(TOPICS)))]
                picked = [str(w) for w in rng.choice(topic, _TOPIC_WORDS, replace=False)]
                picked += [str(w) for w in rng.choice(FILLER, _FILLER_WORDS)]
                picked += [str(w) for w in rng.choice(everything, _STRAY_WORDS)]
                rng.shuffle(picked)
                yield Record(client=f"client-{client:02d}", unit=str(unit), value=" ".join(picked))

    def vocabulary(self) -> Mapping[str, float]:
        """All words with the counts that the generator's design expects."""
        units = CLIENTS * UNITS_PER_CLIENT
        size = sum(map(len, TOPICS))
        filler = {word: units * _FILLER_WORDS / len(FILLER) for word in FILLER}
        topical = {word: units * (_TOPIC_WORDS + _STRAY_WORDS) / size for topic in TOPICS for word in topic}
        return filler | topical


CORPUS = Planted()
