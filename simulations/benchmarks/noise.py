"""Secure noise: cryptographic normals against torch.randn, exact integer noise, noise by address; one thread, CPU time.

Every repetition runs all measures in turn, so that they meet the same load of the machine; a figure is the median over
the repetitions, the ratio to torch.randn the median of the ratios within one. Tables of integer laws are prepared
before the clock starts, as they are in a run, which draws from one law.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np
import torch

from common.privacy.addressable import AddressableNoise
from common.privacy.integer_noise import discrete_gaussian, skellam
from common.privacy.rng import NoiseSource
from simulations.benchmarks._harness import Row, at_least, reported

LEAST_RATIO = 0.3
LEAST_MILLIONS = 20.0
SIGMAS = (4.0, 100.0, 1e3, 1e6, 2.0**40)
MUS = (10.0, 1e3, 1e5, 1e8)
WIDTH = 64
TABLE_ROWS = 10_000_000
_PEER, _OURS, _KEYSTREAM = "torch.randn", "secure normals", "keystream"


class Noise:
    """See the module."""

    name = "noise"

    def run(self, quick: bool) -> list[Row]:
        """Full: nine repetitions of 4 million draws, about half a minute. Quick: one repetition of a few thousand."""
        n, repetitions = (64 * WIDTH, 1) if quick else (62_500 * WIDTH, 9)
        measures = {**continuous_measures(n), **integer_measures(n)}
        with one_thread():
            for draw in measures.values():
                draw()
            speeds: dict[str, list[float]] = {name: [] for name in measures}
            for _ in range(repetitions):
                for name, draw in measures.items():
                    start = time.process_time()
                    draw()
                    speeds[name].append(n / max(time.process_time() - start, 1e-9) / 1e6)
        return rows(speeds, bar=not quick)


def continuous_measures(n: int) -> dict[str, Callable[[], object]]:
    """Normals of both sides, normals by address for neighbouring and for scattered rows, and the bare keystream."""
    source = NoiseSource.seeded_for_tests(0)
    noise, into = AddressableNoise(source), torch.empty(n)
    neighbours = np.arange(n // WIDTH)
    scattered = np.random.default_rng(0).permutation(TABLE_ROWS)[: n // WIDTH]
    return {
        _PEER: lambda: torch.randn(n, out=into),
        _OURS: lambda: source.normal(n, 1.0),
        "normals by address, neighbouring rows": lambda: noise.normal(neighbours, WIDTH, table="centre", round=1),
        "normals by address, scattered rows": lambda: noise.normal(scattered, WIDTH, table="centre", round=1),
        _KEYSTREAM: lambda: [source.words(2**15) for _ in range(0, n, 2**15)],
    }


def integer_measures(n: int) -> dict[str, Callable[[], object]]:
    """Exact integer noise at several scales."""
    source = NoiseSource.seeded_for_tests(1)
    gaussians = {f"discrete Gaussian, sigma {s:.4g}": lambda s=s: discrete_gaussian(source, n, sigma=s) for s in SIGMAS}
    skellams = {f"Skellam, mu {m:.4g}": lambda m=m: skellam(source, n, mu=m) for m in MUS}
    return {**gaussians, **skellams}


def rows(speeds: dict[str, list[float]], *, bar: bool) -> list[Row]:
    """Speeds in million draws a CPU second; 64 bits of keystream count as one draw, so 1000 of them are 8 GB/s."""
    ratio = median(ours / peer for ours, peer in zip(speeds[_OURS], speeds[_PEER], strict=True))
    measure = f"{_OURS} / {_PEER}, float32, one thread"
    listed = [at_least(measure, ratio, LEAST_RATIO) if bar else reported(measure, ratio)]
    for name, values in speeds.items():
        speed = median(values)
        if name == _KEYSTREAM:
            listed.append(reported("keystream AES-256-CTR, GB per CPU second", speed * 8 / 1000))
            continue
        measure = f"{name}, million draws per CPU second"
        exact = name.startswith(("discrete Gaussian", "Skellam"))
        listed.append(at_least(measure, speed, LEAST_MILLIONS) if bar and exact else reported(measure, speed))
    return listed


@contextmanager
def one_thread() -> Iterator[None]:
    """torch with one thread, and with as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


BENCHMARK = Noise()
