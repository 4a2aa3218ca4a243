"""What is kept from training for evaluation: each user's last interaction, or whole clients.

It is gone before a client is made, so neither training nor its negatives can know it. What is measured on it is a
figure about data that the privacy claim does not cover; the release says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from common.errors import DataError
from common.files import atomic_files
from common.seeds import public_seed
from common.table import RowDomain
from common.units import Interaction, Record

HELD_OUT_ONE_IN = 6


def hold_out_last(
    clients: Mapping[str, Sequence[Record]], domain: RowDomain | None, path: Path
) -> dict[str, list[Record]]:
    """Remove the last item of every user that has at least two known ones; write the split to ``path``.

    Ties in time go to the later record. Earlier interactions of the user with the item that is held out go too, so
    that training does not know it; a user with one known item, however often, keeps all. The file has ``offsets``
    (users + 1), ``items`` (training rows), ``held_out`` (one row a user) and ``rows`` (V).

    Raises:
        DataError: the records are not interactions, or nobody has two known items.
    """
    if domain is None:
        raise DataError("data.holdout = 'last' needs interactions with items")
    kept: dict[str, list[Record]] = {}
    train: list[list[int]] = []
    held: list[int] = []
    for client, records in clients.items():
        kept[client] = []
        for own in _by_user(records).values():
            known = [r for r in own if r.value.item in domain.row_of]
            rows = [domain.row_of[r.value.item] for r in known]
            if len(set(rows)) < 2:
                kept[client].extend(own)
                continue
            last = rows[max(range(len(known)), key=lambda i: (known[i].value.timestamp, i))]
            kept[client].extend(r for r, row in zip(known, rows, strict=True) if row != last)
            train.append(sorted(set(rows) - {last}))
            held.append(last)
    if not held:
        raise DataError(
            "no user has interactions with two items of the vocabulary, so none can be held out",
            remedy="Set data.holdout = 'none', or bring users with two items or more.",
        )
    _write(path, train, held, len(domain))
    return kept


def hold_out_clients(clients: Mapping[str, Sequence[Record]], seed: int, path: Path) -> dict[str, list[Record]]:
    """Keep about one client in six from training; write their texts to ``path``, one a line.

    Each client is drawn by the public seed and its own name: another client more or less changes nothing for it.

    Raises:
        DataError: the records are not texts, or fewer than two clients would remain on either side.
    """
    held = {name for name in clients if public_seed(seed, "held-out client", name) % HELD_OUT_ONE_IN == 0}
    if len(held) < 2 or len(clients) - len(held) < 2:
        raise DataError(f"{len(clients)} clients are too few to hold some out", remedy="Set data.holdout = 'none'.")
    texts = [r.value for name in sorted(held) for r in clients[name]]
    if not all(isinstance(text, str) for text in texts):
        raise DataError("data.holdout = 'clients' needs texts", remedy="Set data.holdout = 'none' or 'last'.")
    with atomic_files(path) as (partial,):
        partial.touch(0o600)
        partial.write_text("".join(" ".join(text.split()) + "\n" for text in texts), encoding="utf-8")
    return {name: list(records) for name, records in clients.items() if name not in held}


def _by_user(records: Sequence[Record]) -> dict[str, list[Record]]:
    users: dict[str, list[Record]] = {}
    for record in records:
        if not isinstance(record.value, Interaction):
            raise DataError("data.holdout = 'last' needs a reader of interactions")
        users.setdefault(record.value.user, []).append(record)
    return users


def _write(path: Path, train: Sequence[Sequence[int]], held: Sequence[int], rows: int) -> None:
    offsets = np.concatenate([[0], np.cumsum([len(t) for t in train])]).astype(np.int64)
    items = np.concatenate([np.array(t, dtype=np.int64) for t in train])
    with atomic_files(path) as (partial,), partial.open("wb") as file:
        partial.chmod(0o600)
        np.savez(file, offsets=offsets, items=items, held_out=np.array(held, np.int64), rows=np.array(rows))
