"""Who owns which record in a simulation: by the key that was read, or spread over synthetic clients.

Synthetic partitions deal out whole *atoms*, so a privacy unit is never split between clients. An atom is all records
with one unit key, whichever client they were read from (keys of a corpus hold within its clients alone); where every
record is a unit, or the unit is the client, it is a single record (of interactions: all of a user).
Each of ``[data].clients`` clients receives at least one atom.

* ``key``: the clients as read.
* ``uniform``: atoms in random order, dealt in turn; numbers of atoms differ by at most one.
* ``dirichlet``: label skew. The atoms of each label are split by proportions from a symmetric Dirichlet distribution
  with concentration ``alpha`` (Hsu, Qi and Brown 2019, arXiv:1909.06335, section 3; per label as in Yurochkin et al.
  2019). Label: of the first image of the atom, or else the client as read.
* ``quantity``: power-law sizes: client k receives a share proportional to ``k ** (-1 / alpha)``, the expected order
  statistics of a Pareto distribution with tail index ``alpha``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from client.store import by_client
from common.config import CORPUS, DataConfig
from common.errors import ConfigError, DataError
from common.seeds import public_rng
from common.units import Image, Interaction, Record

Atoms = list[list[Record]]


def partition(records: Iterable[Record], config: DataConfig, seed: int) -> dict[str, list[Record]]:
    """Group records by client: every record goes to exactly one; the result depends on records, config and seed only.

    Raises:
        ConfigError: a synthetic partition without ``data.clients``.
        DataError: fewer atoms than clients.
    """
    if config.partition == "key":
        return dict(by_client(records))
    if not config.clients:
        raise ConfigError(
            f"data.partition = {config.partition!r} needs data.clients", remedy="Set data.clients to their number."
        )
    atoms = _atoms(records, config)
    if len(atoms) < config.clients:
        raise DataError(
            f"the units cannot be spread over {config.clients:,} clients: there are fewer",
            remedy="Lower data.clients, or choose a smaller data.unit.",
        )
    rng = public_rng(seed, "partition", config.partition)
    owners = _owners(atoms, config, rng)
    return _dealt(atoms, owners, config)


def _atoms(records: Iterable[Record], config: DataConfig) -> Atoms:
    atoms: dict[tuple[str, int | str], list[Record]] = {}
    for number, record in enumerate(records):
        atom: tuple[str, int | str] = (record.client if config.reader == CORPUS else "", record.unit)
        if config.unit == "client":
            interacted = isinstance(record.value, Interaction)
            atom = (record.client, record.value.user if interacted else number)
        atoms.setdefault(atom, []).append(record)
    return list(atoms.values())


def _owners(atoms: Atoms, config: DataConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """The client number of each atom."""
    order = rng.permutation(len(atoms))
    owners = np.empty(len(atoms), dtype=np.int64)
    if config.partition == "uniform":
        owners[order] = np.arange(len(atoms)) % config.clients
    elif config.partition == "quantity":
        owners[order] = np.repeat(np.arange(config.clients), _power_law_sizes(len(atoms), config))
    else:
        labels = _labels(atoms)
        for label in range(labels.max() + 1):
            mine = order[labels[order] == label]
            shares = _dirichlet(config.clients, config.alpha, rng)
            ends = np.floor(np.cumsum(shares) * len(mine) + 0.5).astype(np.int64)
            owners[mine] = np.searchsorted(ends, np.arange(len(mine)), side="right").clip(max=config.clients - 1)
        _give_everyone_one(owners, config.clients)
    return owners


def _dirichlet(count: int, alpha: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """One draw from Dir(alpha, ..., alpha), in log space so that a tiny ``alpha`` cannot underflow to 0 / 0.

    Gamma(a) has the law of Gamma(a + 1) * U ** (1 / a) (Marsaglia and Tsang 2000, section 6).
    """
    logs = np.log(rng.gamma(alpha + 1.0, size=count)) + np.log1p(-rng.random(count)) / alpha
    weights = np.exp(logs - logs.max())
    return weights / weights.sum()


def _power_law_sizes(total: int, config: DataConfig) -> NDArray[np.int64]:
    """Whole sizes of at least 1 that sum to ``total``: one each, the rest by largest remainder."""
    logs = -np.log(np.arange(1, config.clients + 1)) / config.alpha
    shares = np.exp(logs) / np.exp(logs).sum() * (total - config.clients)
    sizes = np.floor(shares).astype(np.int64)
    missing = total - config.clients - int(sizes.sum())
    sizes[np.argsort(sizes - shares, kind="stable")[:missing]] += 1
    return sizes + 1


def _labels(atoms: Sequence[Sequence[Record]]) -> NDArray[np.int64]:
    """A small number for each atom's label, in order of first appearance."""
    numbers: dict[int | str, int] = {}
    labels = np.empty(len(atoms), dtype=np.int64)
    for i, atom in enumerate(atoms):
        value = atom[0].value
        label = value.label if isinstance(value, Image) and value.label >= 0 else atom[0].client
        labels[i] = numbers.setdefault(label, len(numbers))
    return labels


def _give_everyone_one(owners: NDArray[np.int64], clients: int) -> None:
    """Move single atoms from the largest clients to those that received none, in place."""
    sizes = np.bincount(owners, minlength=clients)
    empty = np.flatnonzero(sizes == 0)
    for i in np.argsort(-sizes[owners], kind="stable"):
        if not len(empty):
            return
        if sizes[owners[i]] > 1:
            sizes[owners[i]] -= 1
            owners[i], empty = empty[0], empty[1:]


def _dealt(atoms: Atoms, owners: NDArray[np.int64], config: DataConfig) -> dict[str, list[Record]]:
    width = len(str(config.clients - 1))
    names = [f"client-{k:0{width}d}" for k in range(config.clients)]
    dealt: dict[str, list[Record]] = {name: [] for name in names}
    for number, (atom, owner) in enumerate(zip(atoms, owners, strict=True)):
        name = names[owner]
        unit = name if config.unit == "client" else str(number)
        dealt[name].extend(Record(name, unit, record.value) for record in atom)
    return dealt
