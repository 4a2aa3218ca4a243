"""The batched kernel against slow loops over pairs, and against versions of itself that are wrong on purpose."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import logsigmoid

from common.families import _skipgram as kernel
from common.families._skipgram import Moves, Objective, Rows, Step, band, draw_negatives, keep_probabilities, train_step
from common.families._skipgram_layout import NOISE_BLOCKS, STEP_TOKENS, Tokens, band_table, lay_out, noise_groups
from common.seeds import Streams
from common.table import RowDomain

WINDOW, BLOCK, DIMENSIONS, NEGATIVES, LR = 3, 4, 5, 5, 0.1
MODELS = {"sgns": kernel.sgns_moves, "cbow": kernel.cbow_moves}


def random_tokens(lengths, seed, clients=1):
    """Sentences of the given lengths, dealt to clients in order; every client's batch is all it has."""
    rng = np.random.default_rng(seed)
    n = sum(lengths)
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    client = np.sort(rng.integers(clients, size=len(lengths)))[sentence]
    radius = rng.integers(1, WINDOW + 1, size=n)
    return Tokens(rng.integers(1, 40, size=n), sentence, client.copy(), client, radius)


def reading(seed=0, lengths=(9, 1, 14, 8), groups=2, draws=3):
    """Rows that one step reads, its mask, and the tokens behind it."""
    tokens = random_tokens(lengths, seed)
    layout = lay_out(tokens, clients=1, block=BLOCK, window=WINDOW, padding_row=0)
    count = int(layout.blocks[0, 0])
    at = torch.arange(count * BLOCK).view(count, BLOCK) + int(layout.starts[0, 0])
    mask = band(torch.from_numpy(layout.reach)[at], WINDOW)
    rng = torch.Generator().manual_seed(seed)
    shapes = {"middle": (count, BLOCK), "strip": (count, BLOCK + 2 * WINDOW), "negative": (groups, draws)}
    rows = {name: torch.randn(*shape, DIMENSIONS, generator=rng) for name, shape in shapes.items()}
    return Rows(**rows), mask, tokens


def slow_loss(model, read, mask):
    """Loss summed over pairs, one at a time; ``read`` holds tensors that require gradients."""
    total = torch.zeros((), dtype=torch.float64)
    groups, draws = read.negative.shape[:2]
    for b, i in np.ndindex(mask.shape[:2]):
        contexts = [j for j in range(mask.shape[2]) if mask[b, i, j]]
        negatives = read.negative[b * groups // mask.shape[0]]
        if model == "sgns":
            for j in contexts:
                total = total - logsigmoid(read.middle[b, i] @ read.strip[b, j])
                total = total - logsigmoid(-(negatives @ read.middle[b, i])).sum() * NEGATIVES / draws
        elif contexts:
            hidden = torch.stack([read.strip[b, j] for j in contexts]).mean(0)
            total = total - logsigmoid(hidden @ read.middle[b, i])
            total = total - logsigmoid(-(negatives @ hidden)).sum() * NEGATIVES / draws
    return total


def largest_error(model, moves, seed=0):
    """Largest difference between ``moves`` and ``-LR`` times the gradient of the slow loss."""
    read, mask, _ = reading(seed)
    leaves = {name: getattr(read, name).double().requires_grad_() for name in ("middle", "strip", "negative")}
    slow_loss(model, Rows(**leaves), mask).backward()
    result = moves(read, mask.clone(), NEGATIVES, LR).rows
    return max(float((getattr(result, n) + LR * leaf.grad).abs().max()) for n, leaf in leaves.items())


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(5))
def test_moves_are_the_gradient_of_the_slow_loss(model, seed):
    assert largest_error(model, MODELS[model], seed) < 2e-6


def _without_band(moves):
    return lambda read, mask, k, lr: moves(read, torch.ones_like(mask), k, lr)


def _centre_in_its_own_band(moves):
    def broken(read, mask, k, lr):
        own = torch.eye(BLOCK, BLOCK + 2 * WINDOW).roll(WINDOW, 1)
        return moves(read, (mask + own * (mask.sum(2, keepdim=True) > 0)).clamp(max=1), k, lr)

    return broken


def _negatives_counted_once(moves):
    return lambda read, mask, k, lr: moves(read, mask, k / read.negative.shape[1], lr)


def _negatives_of_the_wrong_group(moves):
    def broken(read, mask, k, lr):
        moved = moves(replace(read, negative=read.negative.flip(0)), mask, k, lr)
        return replace(moved, rows=replace(moved.rows, negative=moved.rows.negative.flip(0)))

    return broken


def _strip_forgotten(moves):
    def broken(read, mask, k, lr):
        moved = moves(read, mask, k, lr)
        return replace(moved, rows=replace(moved.rows, strip=torch.zeros_like(moved.rows.strip)))

    return broken


BROKEN = [
    _without_band,
    _centre_in_its_own_band,
    _negatives_counted_once,
    _negatives_of_the_wrong_group,
    _strip_forgotten,
]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("breaking", BROKEN)
def test_a_broken_kernel_is_caught(model, breaking):
    assert largest_error(model, breaking(MODELS[model])) > 1e-2


@pytest.mark.parametrize("model", MODELS)
def test_a_step_adds_up_repeated_rows(model):
    """One step on tables of 40 rows, where almost every row is read several times, against one dense gradient step."""
    _, _, tokens = reading(1)
    layout = lay_out(tokens, clients=1, block=BLOCK, window=WINDOW, padding_row=0)
    count, first = int(layout.blocks[0, 0]), int(layout.starts[0, 0])
    begin = torch.arange(count)[:, None] * BLOCK + first
    words, reach = torch.from_numpy(layout.words), torch.from_numpy(layout.reach)
    strips = words[begin + torch.arange(-WINDOW, BLOCK + WINDOW)]
    step = Step(strips, reach[begin + torch.arange(BLOCK)], torch.tensor([[3, 3, 7], [3, 8, 9]]))
    rng = torch.Generator().manual_seed(0)
    centre, context = (torch.randn(40, DIMENSIONS, generator=rng, dtype=torch.float64) for _ in range(2))
    leaves = centre.clone().requires_grad_(), context.clone().requires_grad_()
    inner, outer = leaves if model == "sgns" else leaves[::-1]
    middle = strips[:, WINDOW : WINDOW + BLOCK]
    read = Rows(inner[middle], outer[strips], leaves[1][step.negatives])
    slow_loss(model, read, band(step.reach, WINDOW)).backward()
    lr = 1e-3  # short enough for no row to be slowed
    tables = centre.float(), context.float()
    train_step(*tables, step, Objective(model, WINDOW, NEGATIVES), lr=lr)
    for table, start, leaf in zip(tables, (centre, context), leaves, strict=True):
        torch.testing.assert_close(table.double(), start - lr * leaf.grad, atol=1e-6, rtol=0)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("seed", range(3))
def test_the_curvature_bounds_the_second_derivative_of_the_loss_along_every_row(model, seed):
    read, mask, _ = reading(seed, lengths=(6, 6))
    curvature = MODELS[model](read, mask.clone(), NEGATIVES, LR).curvature
    direction = torch.randn(DIMENSIONS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    direction /= direction.norm()
    for place in ("middle", "strip", "negative"):
        rows = {n: getattr(read, n).double() for n in ("middle", "strip", "negative")}
        for at in np.ndindex(rows[place].shape[:2]):
            amount = torch.zeros((), dtype=torch.float64, requires_grad=True)
            shifted = rows[place].clone()
            shifted[at] = shifted[at] + amount * direction
            loss = slow_loss(model, Rows(**(rows | {place: shifted})), mask)
            (slope,) = torch.autograd.grad(loss, amount, create_graph=True)
            second = torch.autograd.grad(slope, amount)[0] if slope.requires_grad else torch.zeros(())
            bound = float(getattr(curvature, place)[at].sum())
            assert LR * float(second) <= bound + 1e-6
            if place == "negative":
                assert bound > 0


def crowded_step(words, seed=0):
    """A step of 200 tokens over few words, where every row is read dozens of times."""
    rng = np.random.default_rng(seed)
    n = 200
    zeros = np.zeros(n, np.int64)
    tokens = Tokens(rng.integers(1, words, size=n), zeros, zeros, zeros, zeros + WINDOW)
    layout = lay_out(tokens, clients=1, block=BLOCK, window=WINDOW, padding_row=0)
    begin = torch.arange(n // BLOCK)[:, None] * BLOCK + WINDOW
    strips = torch.from_numpy(layout.words)[begin + torch.arange(-WINDOW, BLOCK + WINDOW)]
    reach = torch.from_numpy(layout.reach)[begin + torch.arange(BLOCK)]
    negatives = torch.from_numpy(rng.integers(1, words, size=(5, 6)))
    return Step(strips, reach, negatives)


def largest_score(lr):
    rng = torch.Generator().manual_seed(0)
    tables = [0.1 * torch.randn(12, DIMENSIONS, generator=rng) for _ in range(2)]
    for seed in range(60):
        train_step(*tables, crowded_step(12, seed), Objective("sgns", WINDOW, NEGATIVES), lr=lr)
    return float((tables[0] @ tables[1].T).abs().max())


@pytest.mark.parametrize("lr", [0.025, 0.5, 5.0])
def test_scores_stay_bounded_where_every_row_repeats(lr):
    assert largest_score(lr) < 20


def test_without_slowed_rows_the_same_steps_diverge(monkeypatch):
    original = kernel.sgns_moves

    def flat(*arguments):
        move = original(*arguments)
        none = Rows(*(torch.zeros_like(getattr(move.curvature, n)) for n in ("middle", "strip", "negative")))
        return Moves(move.rows, none)

    monkeypatch.setattr(kernel, "sgns_moves", flat)
    assert not largest_score(0.5) < 20


def slow_pairs(tokens):
    """(centre position, context position) of all pairs that the windows cover."""
    n = len(tokens.words)
    return {
        (i, j)
        for i in range(n)
        for j in range(n)
        if i != j and tokens.sentence[i] == tokens.sentence[j] and abs(i - j) <= tokens.radius[i]
    }


def laid_out_pairs(tokens, layout, position_of):
    """The same set, read back from the layout through strips and band."""
    pairs = set()
    for c, s in np.ndindex(layout.starts.shape):
        for number in range(layout.blocks[c, s]):
            first = layout.starts[c, s] + number * layout.block
            mask = band(torch.from_numpy(layout.reach[first : first + layout.block])[None], WINDOW)[0]
            for i, j in mask.nonzero().tolist():
                pairs.add((position_of[first + i], position_of[first + j - WINDOW]))
    return pairs


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=8), st.integers(1, 3), st.integers(0, 99))
def test_the_layout_holds_exactly_the_pairs_of_the_windows(lengths, clients, seed):
    tokens = random_tokens(lengths, seed, clients)
    marked = replace(tokens, words=np.arange(1, len(tokens.words) + 1))  # a token's word is its position
    layout = lay_out(marked, clients=clients, block=BLOCK, window=WINDOW, padding_row=0)
    position_of = layout.words - 1
    assert laid_out_pairs(tokens, layout, position_of.tolist()) == slow_pairs(tokens)
    assert not layout.reach[layout.words == 0].any()
    sizes = np.bincount(tokens.client, minlength=clients)
    assert layout.blocks.sum(axis=1).tolist() == [-(-size // BLOCK) for size in sizes]


def test_steps_end_with_batches_and_at_the_limit():
    lengths = [STEP_TOKENS + 40, 10, 2 * STEP_TOKENS]
    n = sum(lengths)
    batch = np.repeat(np.arange(3), lengths)
    zeros = np.zeros(n, np.int64)
    tokens = Tokens(np.arange(1, n + 1), zeros, batch, zeros, zeros + 1)
    layout = lay_out(tokens, clients=1, block=32, window=WINDOW, padding_row=0)
    full = STEP_TOKENS // 32
    assert layout.blocks.tolist() == [[full, 2, 1, full, full]]
    firsts = [0, STEP_TOKENS, STEP_TOKENS + 40, STEP_TOKENS + 50, 2 * STEP_TOKENS + 50]
    assert (layout.words[layout.starts[0]] - 1).tolist() == firsts
    groups = -(-layout.blocks // NOISE_BLOCKS)
    assert noise_groups(np.array(lengths), 32) == groups.sum()
    assert STEP_TOKENS % (NOISE_BLOCKS * 32) == 0


def test_band_table_rows_are_the_windows_they_code():
    table = band_table(2)
    assert table.shape == (9, 5)
    assert table[0].tolist() == [0, 0, 0, 0, 0]
    assert table[1 * 3 + 2].tolist() == [0, 1, 0, 1, 1]
    assert table[2 * 3 + 0].tolist() == [1, 1, 0, 0, 0]


def domain(frequencies):
    return RowDomain(tuple(f"w{i}" for i in range(len(frequencies))), np.array(frequencies, dtype=float))


def test_subsampling_is_the_rule_of_the_code():
    words = domain([600, 300, 99, 1])
    f = np.array([0.6, 0.3, 0.099, 0.001])
    expected = [min(1.0, (np.sqrt(x / 1e-2) + 1) * 1e-2 / x) for x in f]
    assert keep_probabilities(words, 1e-2) == pytest.approx(expected)
    assert keep_probabilities(words, 0).tolist() == [1, 1, 1, 1]
    assert keep_probabilities(words, 1e-2) is keep_probabilities(words, 1e-2)


@pytest.mark.parametrize(("power", "fits"), [(0.75, True), (1.0, False), (0.5, False)])
def test_negatives_follow_the_three_quarter_power(power, fits):
    frequencies = np.array([1000.0, 100.0, 10.0, 1.0])
    n = 20_000
    counts = np.bincount(draw_negatives(domain(frequencies), np.array([n]), Streams([0])), minlength=4)
    expected = n * frequencies**power / (frequencies**power).sum()
    assert bool((np.abs(counts - expected) <= 1).all()) is fits  # strata leave less than one draw to chance


def test_single_draws_are_not_tied_to_their_stratum():
    words = domain([1.0] * 10)
    first = draw_negatives(words, np.full(2_000, 10), Streams(range(2_000)))[::10]
    counts = np.bincount(first, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-square, 9 degrees of freedom, 0.999 quantile
