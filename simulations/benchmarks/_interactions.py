"""The interactions that recommendation is measured on: MovieLens, and a generated population."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from simulations.benchmarks._harness import data_folder
from simulations.corpora import planted_ratings

RATINGS, MOVIES = "rec/ml-latest-small/ratings.csv.gz", "rec/ml-latest-small/movies.csv.gz"
GENERATED = "generated population"


@dataclass(frozen=True)
class Population:
    """One client and one privacy unit a user; ``catalogue`` lists all items, which are public, without counts."""

    name: str
    ratings: Path
    catalogue: Path
    user: str

    @property
    def sections(self) -> dict[str, Any]:
        """``[data]`` and ``[vocabulary]``; each user's last item is held out."""
        return {
            "data": {
                "reader": "interactions",
                "path": str(self.ratings),
                "client_key": [self.user],
                "unit": "client",
                "holdout": "last",
            },
            "vocabulary": {"path": str(self.catalogue), "max_rows": 100_000},
        }


def generated(folder: Path, users: int) -> Population:
    """The first ``users`` of ``planted-ratings`` (``simulations/corpora/planted_ratings.py`` says how it is made)."""
    catalogue, ratings = folder / "items.tsv", folder / "ratings.csv"
    catalogue.write_text("".join(f"{key}\t1\n" for key in planted_ratings.CORPUS.vocabulary()), encoding="utf-8")
    with ratings.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("user", "item", "timestamp"))
        for user, items in enumerate(planted_ratings.CORPUS.lists(users)):
            rows.writerows((user, planted_ratings.item_key(int(item)), time) for time, item in enumerate(items))
    return Population(GENERATED, ratings, catalogue, "user")


def movielens(folder: Path) -> Population:
    """MovieLens latest-small, 610 users; the list of movies is public, their ratings are not.

    Raises:
        DataError: the development data are not there.
    """
    path = folder / "movies.tsv"
    with gzip.open(data_folder() / MOVIES, "rt", encoding="utf-8", newline="") as file:
        path.write_text("".join(f"{row['movieId']}\t1\n" for row in csv.DictReader(file)), encoding="utf-8")
    return Population("MovieLens latest-small", data_folder() / RATINGS, path, "userId")
