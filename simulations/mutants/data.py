"""What happens to records before training gone wrong, and the client's ledger."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from client.admission import Admission
from client.readers import images
from client.session import Session
from common.units import Image
from simulations import holdout
from simulations import partition as partitions
from simulations.mutants import Mutant, instead_of

_from_picture, _hold_out, _reservations = images._from_picture, holdout.hold_out_clients, Admission.reservations


def _numbered_labels(path: Path, name: str, data: Any) -> Any:
    """A label is the place of its folder among those that are there."""
    there = sorted({file.parent.name for file in Path(data.path).rglob("*.png")})
    for image, fields in _from_picture(path, name, data):
        yield Image(image.pixels, there.index(path.parent.name)), fields


def _every_sixth(clients: Mapping[str, Any], seed: int, path: Path) -> dict[str, list[Any]]:
    """Holds out by place in the list of clients."""
    held = list(clients)[seed % 6 :: 6]
    return {name: list(records) for name, records in clients.items() if name not in held}


def _atoms_by_file(records: Any, config: Any) -> list[list[Any]]:
    """A unit is what one file holds of it."""
    atoms: dict[tuple[str, str], list[Any]] = {}
    for record in records:
        atoms.setdefault((record.client, record.unit), []).append(record)
    return list(atoms.values())


def _no_charge(self: Session, *_: Any) -> None:
    """Computes without a word to the ledger."""


def _one_round(self: Admission) -> Any:
    """Reserves one round, whatever is planned."""
    return [dataclasses.replace(part, rounds=1) for part in _reservations(self)]


def _other_event(self: Admission) -> Any:
    """Books the round as if half of the clients had been drawn."""
    event = '{"event": "poisson_sampled", "of": {"event": "gaussian", "noise_multiplier": 2.0}, "rate": 0.5}'
    return [dataclasses.replace(part, event_json=event) for part in _reservations(self)]


MUTANTS = (
    Mutant(
        "labels numbered from the data",
        "labels_are_public",
        replacing=instead_of(images, "_from_picture", _numbered_labels),
    ),
    Mutant(
        "hold-out by order moves other clients",
        "hold_out_moves_nobody",
        replacing=instead_of(holdout, "hold_out_clients", _every_sixth),
    ),
    Mutant(
        "a unit split over files is several units",
        "units_stay_whole",
        replacing=instead_of(partitions, "_atoms", _atoms_by_file),
    ),
    Mutant("rounds that no ledger is charged for", "ledger", replacing=instead_of(Session, "charge", _no_charge)),
    Mutant("one round reserved for all", "ledger", replacing=instead_of(Admission, "reservations", _one_round)),
    Mutant(
        "another event in the ledger than in the plan",
        "ledger",
        replacing=instead_of(Admission, "reservations", _other_event),
    ),
)
