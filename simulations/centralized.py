"""word2vec trained on one machine with all data in one place: the non-private reference for federated runs.

The kernel is the clients' own (``common.families._skipgram``). Workers are processes with one thread each that update
shared tables without locks (Hogwild, Niu et al. 2011, arXiv 1106.5730), which is also how gensim's threads work.
"""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass

import numpy as np
import torch
import torch.multiprocessing  # teaches the standard multiprocessing to pass tensors as shared memory

from common.errors import ConfigError
from common.families._skipgram import Objective, Step, draw_negatives, keep_probabilities, train_step
from common.families._skipgram_layout import NOISE_BLOCKS, Layout, Tokens, lay_out
from common.families.word2vec import CENTRE, CONTEXT, FAMILY, Word2VecOptions
from common.seeds import Streams
from common.table import RowDomain
from common.units import Units
from common.update import Parameters

CHUNK_TOKENS = 400_000  # tokens laid out at a time: many enough for numpy, few enough for memory
BLOCK = 32
LR_STEPS = 16  # steps between two looks at the other workers' progress
LEAST_LR = 1e-4  # share of the learning rate that is left at the end, as in word2vec's code


@dataclass(frozen=True)
class Schedule:
    """Passes over the data, learning rate at the start (it falls linearly), processes, and the public seed."""

    epochs: int = 5
    lr: float = 0.025
    workers: int = 2
    seed: int = 0


@dataclass(frozen=True)
class _Shared:
    """What workers read and write in shared memory. ``seen`` (workers,) counts the tokens that each has trained on."""

    centre: torch.Tensor
    context: torch.Tensor
    words: torch.Tensor
    sentence: torch.Tensor
    seen: torch.Tensor


def train_centralized(units: Units, domain: RowDomain, options: Word2VecOptions, schedule: Schedule) -> Parameters:
    """Train on all units in their order, without privacy and without a federation.

    With more than one worker the calling script needs the ``if __name__ == "__main__"`` guard, and results vary a
    little from run to run; with one worker they are reproducible.

    Raises:
        ConfigError: a worker failed, or training did not stay finite (the learning rate is too high).
    """
    start = FAMILY.initial(options, FAMILY.specs(options, len(domain)), domain, schedule.seed)
    tensors = (
        torch.from_numpy(start[CENTRE]),
        torch.from_numpy(start[CONTEXT]),
        torch.tensor(units.columns["rows"], dtype=torch.int32),
        torch.from_numpy(_sentence_numbers(units)),
        torch.zeros(schedule.workers, dtype=torch.int64),
    )
    shared = _Shared(*(tensor.share_memory_() for tensor in tensors))
    if schedule.workers == 1:
        threads = torch.get_num_threads()
        _single_threaded(0, shared, domain, options, schedule)
        torch.set_num_threads(threads)
    else:
        _run_workers(shared, domain, options, schedule)
    if not bool(torch.isfinite(shared.centre).all() and torch.isfinite(shared.context).all()):
        raise ConfigError("training did not stay finite", remedy="Lower the learning rate.")
    return {CENTRE: shared.centre.numpy(), CONTEXT: shared.context.numpy()}


def _sentence_numbers(units: Units) -> np.ndarray:
    """A number that changes wherever the unit or the record changes, shape (T,), int32."""
    unit = np.repeat(np.arange(units.count), np.diff(units.offsets))
    record = units.columns["sentence"]
    changed = np.concatenate([[False], (unit[1:] != unit[:-1]) | (record[1:] != record[:-1])])
    return np.cumsum(changed[: len(unit)]).astype(np.int32)


def _run_workers(shared: _Shared, domain: RowDomain, options: Word2VecOptions, schedule: Schedule) -> None:
    context = multiprocessing.get_context("spawn")
    jobs = [(number, shared, domain, options, schedule) for number in range(schedule.workers)]
    workers = [context.Process(target=_single_threaded, args=job) for job in jobs]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if any(worker.exitcode for worker in workers):
        raise ConfigError(
            "a training process failed", remedy="Its error is on stderr; check the memory of the machine."
        )


def _single_threaded(
    worker: int, shared: _Shared, domain: RowDomain, options: Word2VecOptions, schedule: Schedule
) -> None:
    torch.set_num_threads(1)  # one step is too small to share out: a second thread costs more than it does
    _work(worker, shared, domain, options, schedule)


def _work(worker: int, shared: _Shared, domain: RowDomain, options: Word2VecOptions, schedule: Schedule) -> None:
    """One worker's share of the tokens, epoch after epoch, in chunks."""
    rng = np.random.default_rng((schedule.seed, worker))
    objective = Objective(options.model, options.window, options.negatives)
    bounds = np.linspace(0, len(shared.words), schedule.workers + 1).astype(int)
    total = schedule.epochs * max(len(shared.words), 1)
    lr = schedule.lr
    for _ in range(schedule.epochs):
        for begin in range(bounds[worker], bounds[worker + 1], CHUNK_TOKENS):
            end = min(begin + CHUNK_TOKENS, bounds[worker + 1])
            steps = _steps(_chunk(shared, slice(begin, end), domain, options, rng), domain, options, rng)
            for number, step in enumerate(steps):
                if number % LR_STEPS == 0:
                    shared.seen[worker] += (end - begin) * min(LR_STEPS, len(steps) - number) // len(steps)
                    lr = schedule.lr * max(1.0 - float(shared.seen.sum()) / total, LEAST_LR)
                train_step(shared.centre, shared.context, step, objective, lr=lr)


def _chunk(
    shared: _Shared, span: slice, domain: RowDomain, options: Word2VecOptions, rng: np.random.Generator
) -> Layout:
    """Subsample the tokens of ``span`` and lay them out as one client's."""
    words = shared.words[span].numpy()
    uniforms = rng.random((2, len(words)), dtype=np.float32)
    kept = np.flatnonzero(uniforms[0] < keep_probabilities(domain, options.subsample)[words])
    alike = np.zeros(len(kept), np.int64)
    tokens = Tokens(
        words=words[kept].astype(np.int64),
        sentence=shared.sentence[span].numpy()[kept].astype(np.int64),
        batch=alike,
        client=alike,
        radius=1 + (uniforms[1][kept] * options.window).astype(np.int64),
    )
    return lay_out(tokens, clients=1, block=BLOCK, window=options.window, padding_row=0)


def _steps(layout: Layout, domain: RowDomain, options: Word2VecOptions, rng: np.random.Generator) -> list[Step]:
    """Views on the layout: blocks of one step follow one another, so a strip is a sliding window over the words."""
    words, reach, block = torch.from_numpy(layout.words), torch.from_numpy(layout.reach), layout.block
    counts = layout.blocks[0]
    groups = np.where(counts % NOISE_BLOCKS == 0, counts // NOISE_BLOCKS, 1)  # the last step may have an odd number
    wanted = np.array([int(groups.sum()) * options.shared_negatives])
    drawn = draw_negatives(domain, wanted, Streams([int(rng.integers(2**63))]), "negatives")
    negatives = torch.from_numpy(drawn.reshape(-1, options.shared_negatives)).split(groups.tolist())
    steps = []
    for first, count, rows in zip(layout.starts[0].tolist(), counts.tolist(), negatives, strict=True):
        end = first + count * block
        strips = words[first - options.window : end + options.window].unfold(0, block + 2 * options.window, block)
        steps.append(Step(strips, reach[first:end].view(-1, block), rows))
    return steps
