"""T1 before training: one unit more changes nothing about the others when records become clients, units and labels.

Whatever is read off all the data (the number of a label, who is held out, which client a unit lies with) would make
neighbouring data sets differ in far more than one unit, and no clip would see it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from client.readers import images
from client.readers._pictures import save_picture
from common.config import DataConfig
from common.evaluation.conformance import Check, Finding
from common.units import Record
from simulations import holdout
from simulations import partition as partitions

_CLASSES = ("ant", "bee", "cat")


def labels_are_public(seed: int = 0) -> list[Finding]:
    """A picture of a class that nobody had before changes no other picture's label."""
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as folder:
        labels = []
        for name in ("bee", "cat", "ant"):
            place = Path(folder) / "client" / name
            place.mkdir(parents=True)
            save_picture(pixels, place / "1.png")
            data = DataConfig(reader="images", path=folder, client_key=("client",), unit="image", classes=_CLASSES)
            labels.append([record.value.label for record in images.READER.read(data)])
    same = sorted(labels[1]) == sorted(labels[2])[1:] == [1, 2]
    return [Finding("T1", "labels beside a new class", "as before" if same else "renumbered", same)]


def hold_out_moves_nobody(seed: int = 0) -> list[Finding]:
    """One client more moves no other client into or out of what is held out."""
    names = [f"client-{k}" for k in range(60)]
    with tempfile.TemporaryDirectory() as folder:
        kept = []
        for some in (names, ["a new one", *names]):
            clients = {name: [Record(name, "0", "words")] for name in some}
            kept.append(set(holdout.hold_out_clients(clients, seed, Path(folder) / "texts")) - {"a new one"})
    moved = len(kept[0] ^ kept[1])
    return [Finding("T1", "hold-out beside a new client", f"moves {moved} others", not moved)]


def units_stay_whole(seed: int = 0) -> list[Finding]:
    """All records with one unit key end with one client, also where they were read from several files."""
    records = [Record(f"file-{k % 3}", f"unit-{k % 10}", f"text {k}") for k in range(60)]
    split = 0
    for kind in ("uniform", "dirichlet", "quantity"):
        data = DataConfig(reader="text", path="-", unit="document", partition=kind, clients=4)
        owners: dict[str, set[str]] = {}
        for client, own in partitions.partition(records, data, seed).items():
            for record in own:
                owners.setdefault(f"unit-{int(record.value.split()[1]) % 10}", set()).add(client)
        split += sum(len(clients) > 1 for clients in owners.values())
    return [Finding("T1", "units read from three files", f"{split} of 30 lie with several clients", not split)]


NEIGHBOURS = tuple(
    Check(check.__name__, "T1", lambda bench, seed, check=check: check(seed))  # type: ignore[misc]
    for check in (labels_are_public, hold_out_moves_nobody, units_stay_whole)
)
