"""The image encoder: resizing, what a batch holds, and that a unit's loss is its own."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from common.families.image import FAMILY, ImageOptions, embed, resized
from common.units import Image, Record, Units

OPTIONS = ImageOptions(size=12, dimension=6, channels=8, blocks=2, classes=4, shift=1, images_per_unit=3)


def slow_resize(image: np.ndarray, size: int) -> np.ndarray:
    """Every source pixel cut into size x size parts: each new pixel is then a plain mean of parts."""
    fine = np.kron(image.astype(float), np.ones((size, size)))
    height, width = image.shape
    return np.rint(fine.reshape(size, height, size, width).mean(axis=(1, 3)))


@settings(max_examples=40, deadline=None)
@given(height=st.integers(1, 20), width=st.integers(1, 20), size=st.integers(1, 9), seed=st.integers(0, 99))
def test_resizing_is_the_mean_of_the_area(height: int, width: int, size: int, seed: int) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    found = resized([image, image], size)
    assert found.shape == (2, size, size) and np.array_equal(found[0], found[1])
    assert np.abs(found[0].astype(float) - slow_resize(image, size)).max() <= 1  # a half may round either way


def test_resizing_keeps_up_and_right_where_they_are() -> None:
    corner = np.zeros((8, 8), np.uint8)
    corner[0, 7] = 255
    assert resized([corner], 4)[0].argmax() == 3
    assert not np.array_equal(resized([corner.T], 4)[0], resized([corner], 4)[0])


def pictures(count: int, seed: int = 0) -> list[Image]:
    rng = np.random.default_rng(seed)
    return [Image(rng.integers(0, 256, (12, 12)).astype(np.uint8), int(rng.integers(4))) for _ in range(count)]


def units(sizes: list[int], labels: int | None = None) -> Units:
    images = iter(pictures(sum(sizes)))
    records = [Record("c", f"u{u}", next(images)) for u, size in enumerate(sizes) for _ in range(size)]
    if labels is not None:
        records = [Record(r.client, r.unit, Image(r.value.pixels, labels)) for r in records]
    return FAMILY.encode(records, None, OPTIONS)


def module(seed: int = 0) -> torch.nn.Module:
    values = FAMILY.initial(OPTIONS, FAMILY.specs(OPTIONS, 0), None, seed)
    rng = np.random.default_rng(seed)
    filled = {n: v + (rng.normal(0, 0.3, v.shape) if n.startswith("scores.") else 0) for n, v in values.items()}
    encoder = FAMILY.module(OPTIONS, 0)
    encoder.load_state_dict({n: torch.from_numpy(np.array(v, dtype=np.float32)) for n, v in filled.items()})
    return encoder


def losses(found: Units, seed: int = 0, options: ImageOptions = OPTIONS) -> torch.Tensor:
    return FAMILY.loss(module(), FAMILY.batch(found, None, options, np.random.default_rng(seed)))


def test_a_batch_holds_at_most_so_many_images_of_a_unit() -> None:
    batch = FAMILY.batch(units([1, 2, 9]), None, OPTIONS, np.random.default_rng(0))
    assert batch["images"].shape == (3, 3, 12, 12) and float(batch["images"].max()) <= 1.0
    np.testing.assert_allclose(batch["weights"].numpy(), [[1, 0, 0], [0.5, 0.5, 0], [1 / 3] * 3], atol=1e-6)


def test_the_loss_of_a_unit_is_the_mean_over_its_images_taken_one_by_one() -> None:
    options = OPTIONS.model_copy(update={"shift": 0})
    found = units([3])
    whole = losses(found, options=options)
    singles = [losses(Units(np.array([0, 1]), {n: c[k : k + 1] for n, c in found.columns.items()}), options=options)
               for k in range(3)]  # fmt: skip
    assert torch.allclose(whole[0], torch.stack(singles).mean(), atol=1e-5)


@pytest.mark.parametrize("label", [-1, 4, 10**9])
def test_an_unknown_label_costs_nothing(label: int) -> None:
    assert losses(units([2, 1], labels=label)).tolist() == [0.0, 0.0]


def test_rotation_needs_no_labels_and_its_targets_are_the_turns() -> None:
    options = OPTIONS.model_copy(update={"objective": "rotation", "shift": 0})
    found = units([1] * 40, labels=-1)
    batch = FAMILY.batch(found, None, options, np.random.default_rng(0))
    assert set(batch["targets"].ravel().tolist()) == {0, 1, 2, 3}
    for image, target, pixels in zip(batch["images"], batch["targets"], found.columns["pixels"], strict=True):
        turned = np.rot90(pixels.astype(np.float32) / 255, int(target[0]))
        np.testing.assert_allclose(image[0].numpy(), turned)
    assert FAMILY.specs(options, 0)[-1].shape == (4,)


def test_moving_repeats_the_border_and_shifts_both_ways() -> None:
    bright = Image(np.pad(np.full((4, 4), 255, np.uint8), 4), 0)
    found = FAMILY.encode([Record("c", str(n), bright) for n in range(60)], None, OPTIONS)
    images = FAMILY.batch(found, None, OPTIONS, np.random.default_rng(0))["images"][:, 0]
    corners = {tuple(np.argwhere(image.numpy())[0].tolist()) for image in images}
    assert corners == {(r, c) for r in (3, 4, 5) for c in (3, 4, 5)}
    assert torch.equal(images.sum((1, 2)), torch.full((60,), 16.0))


def test_vectors_do_not_depend_on_the_other_images() -> None:
    parameters = FAMILY.initial(OPTIONS, FAMILY.specs(OPTIONS, 0), None, 3)
    images = [image.pixels for image in pictures(300)]
    together = embed(parameters, images, OPTIONS)
    assert together.shape == (300, 6) and together.dtype == np.float32
    np.testing.assert_allclose(embed(parameters, images[270:271], OPTIONS)[0], together[270], atol=1e-5)
    assert embed(parameters, [], OPTIONS).shape == (0, 6)


def test_batch_norm_would_couple_units_and_this_check_sees_it() -> None:
    """The independence that the contract relies on, and a network that breaks it."""
    batch = FAMILY.batch(units([1] * 4), None, OPTIONS, np.random.default_rng(0))
    broken = module()
    broken.features[1] = torch.nn.BatchNorm2d(8)
    for encoder, same in ((module(), True), (broken, False)):
        whole = FAMILY.loss(encoder, batch)
        half = FAMILY.loss(encoder, {name: tensor[:2] for name, tensor in batch.items()})
        assert torch.allclose(whole[:2], half, atol=1e-5) is same


@pytest.mark.parametrize("change", [{"channels": 12}, {"size": 4}, {"objective": "contrastive"}, {"classes": 1}])
def test_options_that_make_no_network_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ImageOptions(**change)
