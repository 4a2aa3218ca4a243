"""Simulated clients per second beside pfl-research and Flower's Ray simulation, growth with the table, and memory.

Every client has four sentences of 26 words; a step of SGD is one sentence, a pair is two neighbours: 200 pairs and 4
steps a client on every side. The peers draw 5 negatives a pair (before the clock starts) and use dense
``torch.nn.Embedding`` tables; word2vec here draws rows that a sentence's pairs share, weighted as 5 a pair. The rates
that have a bar are those of as many rows as the family draws by default; one more is reported for as many draws as the
peers make. Every side has all cores (Flower's Ray a process for each, the others torch's threads), the sides in turns,
medians over the rounds after the first; start-up is not timed.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from simulations.benchmarks import _peers
from simulations.benchmarks._engine_ours import EngineJob
from simulations.benchmarks._harness import Row, at_least, at_most, reported

OURS = "simulations.benchmarks._engine_ours"
TORCH = "torch==2.13.0"
PFL = _peers.Peer("pfl", (TORCH, "pfl[pytorch]==0.6.0"), "_engine_pfl.py")
FLOWER = _peers.Peer("flower", (TORCH, "flwr[simulation]==1.41.0"), "_engine_flower.py")

STEPS, WORDS, WINDOW, NEGATIVES_A_PAIR = 4, 26, 1, 5
PAIRS = STEPS * 2 * (WORDS - 1)
DRAWN = 64  # the family's default
NEGATIVE_POWER = 0.75
GROWTH = 10
MIB = 2**20


@dataclass(frozen=True)
class Task:
    """One size: V rows, D columns, clients, cohort; rounds for us, and how many times fewer for a peer."""

    rows: int
    dimensions: int
    population: int
    cohort: int
    rounds: int
    repetitions: int

    @property
    def name(self) -> str:
        return f"V={self.rows} D={self.dimensions} cohort {self.cohort}"


SMALL = Task(5_000, 64, 1_000, 100, 31, 3)
LARGE = Task(30_000, 100, 1_000, 50, 31, 3)
TINY = Task(200, 8, 40, 8, 3, 1)
MANY, MANY_QUICK, MANY_STEPS, MANY_WORDS = 100_000, 2_000, 4, 5


class EngineBenchmark:
    """See the module. Peers are measured where ``--peers DIR`` or ``FEDEMBED_PEERS`` asks for them."""

    name = "engine"

    def run(self, quick: bool) -> list[Row]:
        small, large = (TINY, TINY) if quick else (SMALL, LARGE)
        bar_least, bar_most = (_unjudged, _unjudged) if quick else (at_least, at_most)
        directory = _peers.folder()
        if directory is None:
            print("peers are not measured: name a folder for their environments with --peers DIR", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            data = Path(folder)
            rows = _against(data, small, directory, [(PFL, 5.0), (FLOWER, 40.0)], bar_least)
            if not quick:
                rows += _against(data, large, directory, [(PFL, 20.0), (FLOWER, None)], bar_least)
            rows.append(_growth(data, small, bar_most))
            rows += _many(data, MANY_QUICK if quick else MANY)
        return rows


def _unjudged(measure: str, value: float, bar: float) -> Row:
    """At the tiny size a ratio of times says nothing."""
    return reported(measure, value)


def _against(
    data: Path,
    task: Task,
    directory: Path | None,
    peers: Sequence[tuple[_peers.Peer, float | None]],
    bar: Callable[[str, float, float], Row],
) -> list[Row]:
    """Rates of all sides in turns, and the ratios to each peer: medians over the repetitions."""
    path = data / f"{task.rows}.npz"
    write_data(path, task, seed=1)
    job = _job(path, task)
    sides: dict[str, Callable[[], dict[str, Any]]] = {"ours": lambda: _peers.run_ours(OURS, asdict(job))}
    if directory is not None:
        sides |= {peer.name: _peer_side(peer, directory, job) for peer, _ in peers}
    results = [{name: measured() for name, measured in sides.items()} for _ in range(task.repetitions)]
    equal_draws = _peers.run_ours(OURS, asdict(_job(path, task, PAIRS // STEPS * NEGATIVES_A_PAIR)))
    rates = {name: [rate(r[name]) for r in results] for name in sides}
    rows = _work(task, path, results[0]["ours"])
    rows += [reported(f"{task.name}: clients/s, {name}", float(np.median(v))) for name, v in rates.items()]
    rows.append(reported(f"{task.name}: clients/s, ours with as many draws as the peers", rate(equal_draws)))
    for peer, limit in peers if directory is not None else ():
        ratio = float(np.median(np.array(rates["ours"]) / np.array(rates[peer.name])))
        measure = f"{task.name}: ours / {peer.name}"
        rows.append(reported(measure, ratio) if limit is None else bar(measure, ratio, limit))
    return rows


def _peer_side(peer: _peers.Peer, directory: Path, job: EngineJob) -> Callable[[], dict[str, Any]]:
    """A peer takes fewer rounds: its rounds are long."""
    rounds = min(job.rounds, 5 if peer is FLOWER else 9)
    return lambda: _peers.run_peer(peer, directory, asdict(job) | {"rounds": rounds})


def rate(result: dict[str, Any]) -> float:
    """Clients a second: median over rounds."""
    return float(np.median(np.array(result["clients"]) / np.array(result["seconds"])))


def _job(path: Path, task: Task, drawn: int = DRAWN) -> EngineJob:
    return EngineJob(
        data=str(path),
        dimensions=task.dimensions,
        cohort=task.cohort,
        rounds=task.rounds,
        steps=STEPS,
        negatives=drawn,
        window=WINDOW,
    )


def _work(task: Task, path: Path, ours: dict[str, Any]) -> list[Row]:
    """What a client does on each side, so that a reader can judge how equal the work is."""
    with np.load(path) as data:
        centres = np.median([len(np.unique(c)) for c in data["centres"]])
        context = [len(np.unique(np.append(c, n))) for c, n in zip(data["contexts"], data["negatives"], strict=True)]
    return [
        reported(f"{task.name}: table, MiB (two tables, float32)", 2 * 4 * task.rows * task.dimensions / MIB),
        reported(f"{task.name}: pairs a client, every side", PAIRS),
        reported(f"{task.name}: steps a client, every side", STEPS),
        reported(f"{task.name}: negative rows a client draws, ours", STEPS * DRAWN),
        reported(f"{task.name}: negative rows a client draws, peers", PAIRS * NEGATIVES_A_PAIR),
        reported(f"{task.name}: centre rows a client touches, ours", ours["touched"]["centre.weight"]),
        reported(f"{task.name}: centre rows a client touches, peers", float(centres)),
        reported(f"{task.name}: context rows a client touches, ours", ours["touched"]["context.weight"]),
        reported(f"{task.name}: context rows a client touches, peers", float(np.median(context))),
    ]


def _growth(data: Path, task: Task, bar: Callable[[str, float, float], Row]) -> Row:
    """Cost of a client in a table ten times longer, whose clients use as many rows, spread over all of it."""
    short, long = data / "short.npz", data / "long.npz"
    write_data(short, task, seed=2)
    write_data(long, task, seed=2, spread=GROWTH)
    ratios = []
    for _ in range(task.repetitions):
        costs = [1 / rate(_peers.run_ours(OURS, asdict(_job(path, task)))) for path in (short, long)]
        ratios.append(costs[1] / costs[0])
    return bar(f"cost of a client, V={GROWTH * task.rows} / V={task.rows}", float(np.median(ratios)), 1.3)


def _many(data: Path, clients: int) -> list[Row]:
    """Every client of a large population in one round of one process: its peak memory, start-up included."""
    path = data / "many.npz"
    task = Task(SMALL.rows, SMALL.dimensions, clients, clients, 1, 1)
    write_data(path, task, seed=3, shape=(MANY_STEPS, MANY_WORDS), pairs=False)
    result = _peers.run_ours(OURS, asdict(_job(path, task)))
    return [
        at_most(f"{clients} clients in one process: peak memory, GiB", result["peak_bytes"] / 2**30, 4.0),
        reported(f"{clients} clients in one process: computed", float(result["clients"][0])),
        reported(f"{clients} clients in one process: clients/s", rate(result)),
    ]


def write_data(
    path: Path, task: Task, *, seed: int, spread: int = 1, shape: tuple[int, int] = (STEPS, WORDS), pairs: bool = True
) -> None:
    """Words by Zipf's law, rank 1 to V; the same pairs and the peers' negatives (5 a pair, ``f ** 0.75``) beside them.

    With ``spread`` the table is that many times longer and holds, spread over it, the same words; no other row has a
    frequency at which it would be drawn.
    """
    generator = np.random.default_rng(seed)
    frequencies = 1.0 / np.arange(1, task.rows + 1)
    tokens = _drawn(frequencies, (task.population, *shape), generator)
    negatives = np.zeros((0, 0), np.int32)
    if pairs:
        negatives = _drawn(frequencies**NEGATIVE_POWER, (task.population, PAIRS, NEGATIVES_A_PAIR), generator)
    long = np.full(task.rows * spread, 1e-30)
    places = np.arange(task.rows) * spread + generator.integers(0, spread, task.rows)
    long[places] = frequencies
    left, right = tokens[..., :-1], tokens[..., 1:]
    np.savez(
        path,
        tokens=places[tokens].astype(np.int32),
        frequencies=long,
        centres=np.stack([left, right], -1).reshape(task.population, -1),
        contexts=np.stack([right, left], -1).reshape(task.population, -1),
        negatives=negatives,
    )


def _drawn(weights: np.ndarray, shape: tuple[int, ...], generator: np.random.Generator) -> np.ndarray:
    cumulative = np.cumsum(weights / weights.sum())
    return np.searchsorted(cumulative[:-1], generator.random(shape), side="right").astype(np.int32)


BENCHMARK = EngineBenchmark()
