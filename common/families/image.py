"""An image encoder: a small convolutional network without batch norm, whose loss never couples two images.

Objectives, one number an image either way:

* ``classes``: cross-entropy over public class numbers 0..classes-1 (a label outside is unknown and costs nothing). The
  classes only teach the encoder; what is released is the vector before the last layer, and it is judged on classes
  that were never seen.
* ``rotation``: for images without labels: which of four quarter turns was applied (Gidaris, Singh and Komodakis 2018).

Contrastive losses take other images as negatives, so removing one unit changes the loss of all others; they have no
per-unit gradient to clip and are therefore not offered. Group norm stands in for batch norm for the same reason
(Wu and He 2018). Blocks follow the prototypical network (Snell, Swersky and Zemel 2017): convolution, norm, ReLU, pool.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field
from torch import nn
from torch.nn import functional

from common.families import FamilyOptions
from common.table import EmbeddingTable, FloatArray, IntArray, RowDomain
from common.units import Image, Record, Units
from common.update import Parameters, ParameterSpec

_EMBED_CHUNK = 256
_CHANNELS_A_GROUP = 8


class ImageOptions(FamilyOptions):
    """``[task]`` of the image family."""

    size: int = Field(28, ge=8, le=256, description="images are resized to size x size")
    dimension: int = Field(64, ge=1, le=4096, description="length of an image's vector")
    channels: int = Field(32, ge=8, le=512, multiple_of=8, description="channels of every convolution")
    blocks: int = Field(3, ge=1, le=6, description="convolution blocks; each halves the image")
    objective: Literal["classes", "rotation"] = "classes"
    classes: int = Field(256, ge=2, le=100_000, description="number of public classes (objective classes)")
    shift: int = Field(2, ge=0, description="training images are moved by up to this many pixels each way")
    images_per_unit: int = Field(8, ge=1, description="images of one unit that enter one step, drawn at random")

    @property
    def needs_labels(self) -> bool:
        """Whether the objective is ``classes``."""
        return self.objective == "classes"


class Encoder(nn.Module):
    """Images (B, S, S) in [0, 1] to vectors (B, D), and class scores (B, C)."""

    def __init__(self, options: ImageOptions) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for block in range(options.blocks):
            into = 1 if block == 0 else options.channels
            layers += [
                nn.Conv2d(into, options.channels, 3, padding=1),
                nn.GroupNorm(options.channels // _CHANNELS_A_GROUP, options.channels),
                nn.ReLU(),
                nn.MaxPool2d(2, ceil_mode=True),
            ]
        self.features = nn.Sequential(*layers)
        side = options.size
        for _ in range(options.blocks):
            side = -(-side // 2)
        self.vector = nn.Linear(options.channels * side * side, options.dimension)
        self.scores = nn.Linear(options.dimension, 4 if options.objective == "rotation" else options.classes)

    def embed(self, images: torch.Tensor) -> torch.Tensor:
        """Vectors (B, D)."""
        vectors: torch.Tensor = self.vector(self.features(images[:, None] - 0.5).flatten(1))
        return vectors

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Class scores (B, C)."""
        scores: torch.Tensor = self.scores(torch.relu(self.embed(images)))
        return scores


class ImageFamily:
    """``image``: see the module's text."""

    name = "image"
    Options = ImageOptions
    records = "images"
    row_domain = None

    def specs(self, options: ImageOptions, rows: int) -> tuple[ParameterSpec, ...]:
        """The layers of ``Encoder``, all dense."""
        with torch.device("meta"):
            state = Encoder(options).state_dict()
        return tuple(ParameterSpec(name, tuple(tensor.shape)) for name, tensor in state.items())

    def initial(
        self, options: ImageOptions, specs: Sequence[ParameterSpec], domain: RowDomain | None, seed: int
    ) -> Parameters:
        """He et al. 2015, equation 10: normal weights of variance 2 / fan-in; zero biases; norms start as identity.

        The last layer starts at zero: random scores over many classes would drown the first hundred steps.
        """
        rng = np.random.default_rng(seed)
        found: dict[str, FloatArray] = {}
        for spec in specs:
            if spec.name.startswith("scores."):
                found[spec.name] = np.zeros(spec.shape, dtype=np.float32)
            elif len(spec.shape) == 1:
                identity = spec.name.endswith("weight")
                found[spec.name] = np.full(spec.shape, 1.0 if identity else 0.0, dtype=np.float32)
            else:
                stddev = np.sqrt(2.0 / np.prod(spec.shape[1:]))
                found[spec.name] = (rng.standard_normal(spec.shape) * stddev).astype(np.float32)
        return found

    def encode(self, records: Iterable[Record], domain: RowDomain | None, options: ImageOptions) -> Units:
        """Columns ``pixels`` (n, S, S) uint8, stored as read (``batch`` scales to [0, 1]), and ``labels`` int64."""
        found: dict[str, list[Image]] = {}
        for record in records:
            found.setdefault(record.unit, []).append(record.value)
        images = [image for unit in found.values() for image in unit]
        offsets = np.cumsum([0, *(len(unit) for unit in found.values())])
        pixels = resized([image.pixels for image in images], options.size)
        labels = np.array([image.label for image in images], dtype=np.int64)
        return Units(offsets.astype(np.int64), {"pixels": pixels, "labels": labels})

    def module(self, options: ImageOptions, rows: int) -> Encoder:
        """The network with all parameters zero; values come from ``initial`` or from the server."""
        with torch.device("meta"):  # the usual constructor would draw from torch's global generator
            module = Encoder(options)
        module = module.to_empty(device="cpu")
        for parameter in module.parameters():
            nn.init.zeros_(parameter)
        return module

    def batch(
        self, units: Units, domain: RowDomain | None, options: ImageOptions, rng: np.random.Generator
    ) -> Mapping[str, torch.Tensor]:
        """``images`` (B, M, S, S) in [0, 1], ``targets`` (B, M) and ``weights`` (B, M), which sum to 1 or 0 a unit."""
        index, present = _chosen(units, options.images_per_unit, rng)
        shifts = rng.integers(-options.shift, options.shift + 1, (*index.shape, 2))
        turns = rng.integers(0, 4, index.shape)
        images = np.zeros((*index.shape, options.size, options.size), dtype=np.float32)
        targets, weights = np.zeros(index.shape, np.int64), present.astype(np.float32)
        for place in zip(*np.nonzero(present), strict=True):
            pixels = units.columns["pixels"][index[place]].astype(np.float32) / 255.0
            label = int(units.columns["labels"][index[place]])
            if options.objective == "rotation":
                pixels, label = np.rot90(pixels, turns[place]), int(turns[place])
            images[place] = _moved(pixels, *shifts[place])
            known = options.objective == "rotation" or 0 <= label < options.classes
            targets[place], weights[place] = (label, 1.0) if known else (0, 0.0)
        weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1.0)
        arrays = {"images": images, "targets": targets, "weights": weights}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def loss(self, module: nn.Module, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean cross-entropy of a unit's images, shape (B,).

        One pass a slot: the first axis of everything a layer sees must count units.
        """
        total = torch.zeros(len(batch["weights"]), device=batch["weights"].device)
        for slot in range(batch["targets"].shape[1]):
            scores = module(batch["images"][:, slot])
            losses = functional.cross_entropy(scores, batch["targets"][:, slot], reduction="none")
            total = total + losses * batch["weights"][:, slot]
        return total

    def export(
        self, parameters: Parameters, domain: RowDomain | None, options: ImageOptions
    ) -> dict[str, EmbeddingTable]:
        """No table: an encoder is released as its parameters. ``embed`` makes vectors."""
        return {}


def embed(parameters: Parameters, images: Sequence[NDArray[np.uint8]], options: ImageOptions) -> FloatArray:
    """Vectors of images of any size, shape (n, D), float32."""
    module = FAMILY.module(options, 0)
    module.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in parameters.items()})
    pixels = resized(images, options.size)
    vectors = [np.zeros((0, options.dimension), np.float32)]
    with torch.no_grad():
        for start in range(0, len(pixels), _EMBED_CHUNK):
            part = torch.from_numpy(pixels[start : start + _EMBED_CHUNK].astype(np.float32) / 255.0)
            vectors.append(module.embed(part).numpy())
    return np.concatenate(vectors)


def resized(images: Sequence[NDArray[np.uint8]], size: int) -> NDArray[np.uint8]:
    """Every image as (size, size): the mean of the area under each new pixel. Shape (n, size, size), uint8."""
    out = np.zeros((len(images), size, size), dtype=np.uint8)
    weights: dict[int, NDArray[np.float64]] = {}
    for number, image in enumerate(images):
        height, width = image.shape
        for side in (height, width):
            if side not in weights:
                weights[side] = _area_weights(side, size)
        out[number] = np.rint(weights[height] @ image @ weights[width].T).astype(np.uint8)
    return out


def _area_weights(source: int, target: int) -> NDArray[np.float64]:
    """(target, source): share of each source pixel in each target pixel along one axis; rows sum to 1."""
    edges = np.arange(target + 1) * (source / target)
    low, high = np.arange(source), np.arange(1, source + 1)
    overlap = np.minimum(edges[1:, None], high) - np.maximum(edges[:-1, None], low)
    return np.maximum(overlap, 0.0) * (target / source)


def _chosen(units: Units, limit: int, rng: np.random.Generator) -> tuple[IntArray, NDArray[np.bool_]]:
    """(B, M) element numbers, at most ``limit`` a unit drawn without replacement, and which of them are real."""
    sizes = np.minimum(np.diff(units.offsets), limit)
    index = np.zeros((units.count, max(1, int(sizes.max(initial=0)))), dtype=np.int64)
    for unit, size in enumerate(sizes):
        lo, hi = int(units.offsets[unit]), int(units.offsets[unit + 1])
        index[unit, :size] = lo + (rng.permutation(hi - lo)[:size] if hi - lo > limit else np.arange(hi - lo))
    return index, np.arange(index.shape[1]) < sizes[:, None]


def _moved(pixels: NDArray[Any], down: int, right: int) -> NDArray[Any]:
    """``pixels`` moved by whole pixels; the border is repeated where nothing was."""
    rows = np.clip(np.arange(pixels.shape[0]) - down, 0, pixels.shape[0] - 1)
    columns = np.clip(np.arange(pixels.shape[1]) - right, 0, pixels.shape[1] - 1)
    return pixels[np.ix_(rows, columns)]


FAMILY = ImageFamily()
