"""Server optimizers: row-wise steps against the textbook step on a dense table."""

import numpy as np
import pytest

from common.config import ServerConfig
from server.optimizers import BETA1, BETA2, TAU, MeanUpdate, apply_step

ROWS, COLUMNS = 6, 3


def textbook(name, x, gradients, lr, momentum):
    """Dense reference: one formula a line, written from the module's table."""
    x = x.astype(np.float64)
    velocity, first, second = np.zeros_like(x), np.zeros_like(x), np.zeros_like(x)
    row_second = np.zeros((len(x), 1))
    for g in gradients:
        if name == "sgd":
            velocity = momentum * velocity + g
            x = x + lr * velocity
        elif name == "adam":
            first = BETA1 * first + (1 - BETA1) * g
            second = BETA2 * second + (1 - BETA2) * g**2
            x = x + lr * first / (np.sqrt(second) + TAU)
        elif name == "adagrad":
            second = second + g**2
            x = x + lr * g / (np.sqrt(second) + TAU)
        else:
            row_second = row_second + (g**2).mean(axis=1, keepdims=True)
            x = x + lr * g / (np.sqrt(row_second) + TAU)
    return x


def sparse_gradients(rounds=5):
    rng = np.random.default_rng(3)
    for _ in range(rounds):
        ids = np.sort(rng.choice(ROWS, 2, replace=False))
        yield ids, rng.standard_normal((2, COLUMNS)).astype(np.float32)


@pytest.mark.parametrize("name", ["sgd", "adam", "adagrad", "rowwise_adagrad"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("sparse", [True, False])
def test_steps_equal_the_textbook(name, momentum, sparse):
    config = ServerConfig(optimizer=name, lr=0.3, momentum=momentum)
    start = np.random.default_rng(1).standard_normal((ROWS, COLUMNS)).astype(np.float32)
    parameters, state, dense = {"t": start.copy()}, {}, []
    for ids, values in sparse_gradients():
        g = np.zeros((ROWS, COLUMNS), np.float32)
        g[ids] = values
        dense.append(g)
        apply_step(parameters, {"t": MeanUpdate(ids, values) if sparse else MeanUpdate(None, g)}, state, config)
    expected = textbook(name, start, dense, 0.3, momentum)
    np.testing.assert_allclose(parameters["t"], expected, rtol=2e-4, atol=2e-5)


def test_changed_rows_are_reported_only_where_nothing_else_moved():
    ids, values = np.array([2]), np.ones((1, COLUMNS), np.float32)
    for optimizer, momentum, expected in [
        ("sgd", 0.0, [2]),
        ("adagrad", 0.0, [2]),
        ("sgd", 0.5, [2]),
        ("adam", 0, [2]),
    ]:
        parameters = {"t": np.zeros((ROWS, COLUMNS), np.float32)}
        config = ServerConfig(optimizer=optimizer, lr=1.0, momentum=momentum)
        changed = apply_step(parameters, {"t": MeanUpdate(ids, values)}, {}, config)
        has_memory = optimizer == "adam" or momentum > 0
        assert (changed is None) == has_memory
        if changed is not None:
            assert changed["t"].tolist() == expected
