"""Server optimizers: the mean update becomes a step. State is plain arrays, so that a checkpoint holds it whole.

``mean`` plays the role of a negative gradient (Reddi et al., Adaptive Federated Optimization, ICLR 2021, Algorithm 2):

    sgd              x += lr * u,            u = momentum * u + mean
    adam             m = b1 m + (1 - b1) mean;  v = b2 v + (1 - b2) mean^2;  x += lr * m / (sqrt(v) + tau)
    adagrad          v += mean^2;            x += lr * mean / (sqrt(v) + tau)
    rowwise_adagrad  v_i += mean(mean_i^2);  x_i += lr * mean_i / (sqrt(v_i) + tau)   (one number a row)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from common.config import ServerConfig
from common.table import FloatArray, IntArray

BETA1, BETA2, TAU = 0.9, 0.99, 1e-3

State = dict[str, FloatArray]


@dataclass(frozen=True)
class MeanUpdate:
    """The released mean of one parameter: all of it (``ids`` is ``None``), or the given rows."""

    ids: IntArray | None
    values: FloatArray


def apply_step(
    parameters: dict[str, FloatArray], means: Mapping[str, MeanUpdate], state: State, config: ServerConfig
) -> dict[str, IntArray] | None:
    """Change ``parameters`` and ``state`` in place; the cost follows the rows given, where the optimizer allows it.

    Returns:
        The rows that changed, per table; ``None`` when anything may have changed.
    """
    changed: dict[str, IntArray] = {}
    everything = False
    for name, mean in means.items():
        value = parameters[name]
        if mean.ids is not None and _has_memory(config):
            dense = np.zeros_like(value)
            dense[mean.ids] = mean.values
            mean = MeanUpdate(None, dense)
        rows: IntArray | slice = slice(None) if mean.ids is None else mean.ids
        value[rows] += np.float32(config.lr) * _direction(name, mean.values, rows, value.shape, state, config)
        if mean.ids is None:
            everything = True
        else:
            changed[name] = mean.ids
    return None if everything else changed


def _has_memory(config: ServerConfig) -> bool:
    """Whether a row moves in a round that does not touch it."""
    return config.optimizer == "adam" or (config.optimizer == "sgd" and config.momentum > 0)


def _direction(  # the state is indexed by name and rows: six values that belong together
    name: str, mean: FloatArray, rows: IntArray | slice, shape: tuple[int, ...], state: State, config: ServerConfig
) -> FloatArray:
    if config.optimizer == "sgd":
        if config.momentum == 0:
            return mean
        velocity = state.setdefault(f"velocity/{name}", np.zeros(shape, np.float32))
        velocity *= np.float32(config.momentum)
        velocity += mean
        return velocity
    if config.optimizer == "adam":
        first = state.setdefault(f"first/{name}", np.zeros(shape, np.float32))
        second = state.setdefault(f"second/{name}", np.zeros(shape, np.float32))
        first += np.float32(1 - BETA1) * (mean - first)
        second += np.float32(1 - BETA2) * (np.square(mean) - second)
        return _over_root(first, second)
    if config.optimizer == "rowwise_adagrad" and len(shape) == 2:
        squares = state.setdefault(f"row_squares/{name}", np.zeros((shape[0], 1), np.float32))
        squares[rows] += np.square(mean).mean(axis=1, keepdims=True)
        return _over_root(mean, squares[rows])
    squares = state.setdefault(f"squares/{name}", np.zeros(shape, np.float32))
    squares[rows] += np.square(mean)
    return _over_root(mean, squares[rows])


def _over_root(numerator: FloatArray, squares: FloatArray) -> FloatArray:
    return np.divide(numerator, np.sqrt(squares) + np.float32(TAU), dtype=np.float32)
