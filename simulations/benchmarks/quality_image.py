"""The image encoder trained by writers apart, against the same network trained on all their images in one place.

Omniglot small: 160 writers (alphabet, drawer), 242 characters. Every fourth character is never trained on; on these
the encoder is judged: images by drawers 1-10 are the support, those by drawers 11-20 the queries, and a query is
given the class that most of its five nearest support images have. Both trainings see the same images equally often and
start from the same values; both figures are means over the seeds. A writer holds some 22 images, each of another
character.

``federated`` draws a twentieth of the writers a round (Poisson), each of whom makes one pass in small batches; the
server applies the mean with momentum. (Without momentum and at a four times larger local rate, ten passes gave 0.36
where these settings gave 0.84: a writer's few classes pull the last layer far away from the others'.) ``collected`` is
the same program with a single client that holds everything, at a rate that suited it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
from numpy.typing import NDArray

from common.evaluation.quality import knn
from common.families.image import ImageOptions, embed, resized
from common.release import load_release
from common.table import EmbeddingTable, FloatArray
from server.progress import LogReporter
from simulations.benchmarks._federated import clients_of, privacy, scenario
from simulations.benchmarks._harness import Row, at_least, data_folder, reported, unjudged
from simulations.federation import run_locally

DATA = "images/omniglot_small.npz"
SIDE = 28
LEAST_SHARE = 0.95
HELD_OUT_EVERY = 4
LAST_SUPPORT_DRAWER = 10
TASK = {"family": "image", "size": SIDE, "classes": 242}
RATE = 0.05


@dataclass(frozen=True)
class Images:
    """``pixels`` (n, SIDE, SIDE) uint8 with the character, alphabet and drawer of each."""

    pixels: NDArray[np.uint8]
    character: NDArray[np.int64]
    alphabet: NDArray[np.int64]
    drawer: NDArray[np.int64]

    def chosen(self, mask: NDArray[np.bool_]) -> Images:
        return Images(self.pixels[mask], self.character[mask], self.alphabet[mask], self.drawer[mask])


class QualityImage:
    """See the module."""

    name = "quality_image"

    def run(self, quick: bool) -> list[Row]:
        """Twenty passes and two seeds; ``quick`` is a generated set of strokes, one pass, one seed and no bar.

        Raises:
            DataError: no folder of benchmark data.
        """
        images, passes, seeds = (_generated(), 1, 1) if quick else (_omniglot(data_folder() / DATA), 20, 2)
        unseen = images.character % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name).resolve()
            data = _written(images.chosen(~unseen), folder / "seen.npz")
            judged = images.chosen(unseen)
            accuracy = {
                kind: fmean(_accuracy(_vectors(data, settings, folder, seed, judged), judged) for seed in range(seeds))
                for kind, settings in (("federated", _federated(passes)), ("collected", _collected(passes)))
            }
        raw = 255.0 - judged.pixels.reshape(len(judged.pixels), -1).astype(np.float32)
        rows = [
            reported("raw pixels: k-NN accuracy on unseen characters", _accuracy(raw, judged)),
            reported("collected: k-NN accuracy on unseen characters", accuracy["collected"]),
            reported("federated: k-NN accuracy on unseen characters", accuracy["federated"]),
            at_least("federated / collected", accuracy["federated"] / accuracy["collected"], LEAST_SHARE),
        ]
        return unjudged(rows) if quick else rows


def _federated(passes: int) -> dict[str, Any]:
    return {
        "data": {"client_key": ["alphabet", "drawer"]},
        "federation": {"rounds": round(passes / RATE), "sampling": "poisson", "rate": RATE},
        "training": {"batch_size": 4, "lr": 0.05},
        "server": {"momentum": 0.9, "checkpoint_every": 1000},
    }


def _collected(passes: int) -> dict[str, Any]:
    return {
        "data": {"client_key": ["everyone"]},
        "federation": {"rounds": passes},
        "training": {"batch_size": 32, "lr": 0.2},
        "server": {"checkpoint_every": 1000},
    }


def _vectors(
    data: Mapping[str, Any], settings: Mapping[str, Any], folder: Path, seed: int, judged: Images
) -> FloatArray:
    """Train, and embed the images to be judged."""
    chosen = scenario({"task": TASK, "data": data, "seed": seed}, privacy("none", None, 1e-5), settings)
    store = clients_of(chosen, folder / chosen.digest[:16])
    with tempfile.TemporaryDirectory() as name:
        out = Path(name).resolve()
        run_config = {"scenario": chosen.canonical_json(), "out": str(out), "benchmarks": "{}", "simulation": str(out)}
        run_locally(store, out, run_config, LogReporter())
        model = load_release(out / "release").model
    parameters = {name: array.astype(np.float32) for name, array in model.items()}
    return embed(parameters, list(judged.pixels), ImageOptions(size=SIDE, classes=TASK["classes"]))


def _accuracy(vectors: FloatArray, judged: Images) -> float:
    parts = np.where(judged.drawer <= LAST_SUPPORT_DRAWER, "support", "query")
    keys, labels = knn.labels_of(judged.character.tolist(), parts.tolist())
    (score,) = knn.TASK.score(EmbeddingTable(keys, vectors), labels, seed=0)
    return score.value


def _omniglot(path: Path) -> Images:
    with np.load(path, allow_pickle=False) as file:
        side = int(file["shape"][0])
        bits = np.unpackbits(file["packed"], axis=1)[:, : side * side].reshape(-1, side, side)
        fields = [file[name].astype(np.int64) for name in ("character", "alphabet", "drawer")]
    return Images(resized(list(255 - 255 * bits), SIDE), *fields)


def _generated() -> Images:
    """Twelve "characters" of two crossing strokes by twenty drawers of one alphabet."""
    rng = np.random.default_rng(0)
    character, drawer = np.repeat(np.arange(12), 20), np.tile(np.arange(1, 21), 12)
    pixels = np.full((len(character), SIDE, SIDE), 255, dtype=np.uint8)
    for image, number in zip(pixels, character, strict=True):
        down, across = 4 + 6 * (number % 4) + rng.integers(2), 6 + 7 * (number // 4) + rng.integers(2)
        image[down : down + 2] = image[:, across : across + 2] = 0
    return Images(pixels, character, np.zeros_like(character), drawer)


def _written(images: Images, path: Path) -> dict[str, Any]:
    """The images as a file for the reader; its section ``[data]`` without the key of the clients."""
    np.savez(
        path,
        images=images.pixels,
        character=images.character,
        alphabet=images.alphabet,
        drawer=images.drawer,
        everyone=np.zeros_like(images.drawer),
    )
    return {"reader": "images", "path": str(path), "unit": "image", "label_field": "character"}


BENCHMARK = QualityImage()
