"""Small inputs with planted structure for every kind of record a family may take."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from common.families import LocalTraining
from common.table import RowDomain
from common.units import Image, Interaction, Record, Units

GROUPS, PER_GROUP, SPARE = 6, 7, 8
CLIENTS = 6
SIDE = 28
LETTERS = "abcdefghijklmnopqrstuvwxyz"
KEYS = tuple("w" + LETTERS[i // 26] + LETTERS[i % 26] for i in range(GROUPS * PER_GROUP + SPARE))
UNKNOWN = "zzzunknown"


@dataclass(frozen=True)
class Case:
    """A family with what its contract is tried on.

    Attributes:
        records: of all clients; those of client ``c{i}`` make up ``clients[i]``.
        weird: record lists that must encode without an error.
    """

    family: Any
    options: Any
    domain: RowDomain | None
    records: tuple[Record, ...]
    weird: tuple[tuple[Record, ...], ...]

    @property
    def rows(self) -> int:
        return 0 if self.domain is None else len(self.domain)

    @property
    def specs(self) -> Any:
        return self.family.specs(self.options, self.rows)

    def initial(self, seed: int = 0) -> Any:
        return self.family.initial(self.options, self.specs, self.domain, seed)

    @property
    def heavy(self) -> Units:
        """One unit with much more in it than any other: everything that anybody holds, as if it were one subject's."""
        records = self.records
        if self.family.records.startswith("interactions"):
            items = dict.fromkeys(r.value.item for r in records)
            records = tuple(Record("c", "u", Interaction("one user", item)) for item in items)
        return self.encode(records).as_one()

    def encode(self, records: Any) -> Units:
        return self.family.encode(records, self.domain, self.options)

    @property
    def clients(self) -> list[Units]:
        names = dict.fromkeys(record.client for record in self.records)
        return [self.encode([r for r in self.records if r.client == name]) for name in names]

    @property
    def everyone(self) -> Units:
        """All records as those of one client, followed by a unit that holds nothing the family knows."""
        return self.encode([*self.records, *self.weird[1]])


def case_for(family: Any) -> Case:
    """The family on the first kind of record it takes, with few dimensions where it has such an option."""
    kind = family.records.split("|")[0]
    fields = family.Options.model_fields
    small = {"dimension": 8} if "dimension" in fields else {}
    domain = RowDomain(KEYS, np.ones(len(KEYS)), source="public") if family.row_domain else None
    records, weird = {"text": _text, "interactions": _interactions, "images": _images}[kind]()
    return Case(family, family.Options(**small), domain, records, weird)


def training(*, batch_size: int = 16, epochs: int = 4, lr: float = 0.1) -> LocalTraining:
    return LocalTraining(local_steps=0, local_epochs=epochs, batch_size=batch_size, lr=lr)


def group_of(row: int) -> int:
    """Planted group of a row; -1 for the spare ones, which no record holds."""
    return row // PER_GROUP if row < GROUPS * PER_GROUP else -1


def _members(group: int, count: int, rng: np.random.Generator, *, repeats: bool) -> list[str]:
    return [KEYS[group * PER_GROUP + i] for i in rng.choice(PER_GROUP, count, replace=repeats)]


def _text() -> tuple[tuple[Record, ...], tuple[tuple[Record, ...], ...]]:
    rng = np.random.default_rng(1)
    records = [
        Record(f"c{i % CLIENTS}", f"u{i}", " ".join(_members(int(rng.integers(GROUPS)), 10, rng, repeats=True)))
        for i in range(240)
    ]
    texts = [
        "",
        f"{UNKNOWN} {UNKNOWN}",
        KEYS[0],
        KEYS[0] * 2,
        f"{KEYS[0]} " * 3000,
        "\x00\ufffd \U0001f600 \u0130",
        "a\nb\t",
    ]
    return tuple(records), _weird(texts)


def _interactions() -> tuple[tuple[Record, ...], tuple[tuple[Record, ...], ...]]:
    rng = np.random.default_rng(1)
    records = [
        Record(f"c{user % CLIENTS}", f"user{user}", Interaction(f"user{user}", item, timestamp=float(n)))
        for user in range(120)
        for n, item in enumerate(_members(int(rng.integers(GROUPS)), 5, rng, repeats=False))
    ]
    values = [Interaction("a", item) for item in (UNKNOWN, UNKNOWN, KEYS[0], KEYS[0], "", "\ufffd")]
    values += [Interaction("b", KEYS[1], weight=1e30), Interaction("", KEYS[2], timestamp=-1e18)]
    return tuple(records), _weird(values)


def _images() -> tuple[tuple[Record, ...], tuple[tuple[Record, ...], ...]]:
    rng = np.random.default_rng(1)

    def drawn(label: int) -> Image:
        pixels = rng.integers(0, 60, (SIDE, SIDE))
        place = int(rng.integers(4, SIDE - 4))
        stroke = (slice(None), slice(place - 2, place + 2))
        pixels[stroke if label else stroke[::-1]] += 180
        return Image(pixels.astype(np.uint8), label)

    records = [Record(f"c{i % CLIENTS}", f"u{i}", drawn(i // CLIENTS % GROUPS)) for i in range(96)]
    flat = [Image(np.full((SIDE, SIDE), level, dtype=np.uint8), label) for level in (0, 255) for label in (-1, 0)]
    odd = [Image(np.zeros(shape, dtype=np.uint8)) for shape in ((1, 1), (3, 200), (105, 105))]
    return tuple(records), _weird([*flat, *odd])


def _weird(values: list[Any]) -> tuple[tuple[Record, ...], ...]:
    """No record, each value alone (the second list holds nothing known), and all in one unit."""
    alone = tuple((Record("c", "only", value),) for value in values)
    return ((), *alone, tuple(Record("c", "one unit", value) for value in values))
