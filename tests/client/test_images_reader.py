"""The images reader: arrays, bits and folders; sizes are checked before memory is taken."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client import readers
from client.readers import read
from client.readers._pictures import save_picture
from common.config import DataConfig
from common.errors import ConfigError, DataError, DataFormatError, DataLimitError
from common.units import Record

PIXELS = np.random.default_rng(11).integers(0, 256, size=(3, 4, 5), dtype=np.uint8)


def images(path: Path, **settings: Any) -> list[Record]:
    return list(read(DataConfig(reader="images", path=str(path), **settings)))


def saved(path: Path, **arrays: Any) -> Path:
    np.savez(path, **arrays)
    return path


def refused(path: Path, error: type[DataError] = DataFormatError, **settings: Any) -> str:
    with pytest.raises(error) as caught:
        images(path, **settings)
    return caught.value.message


def test_arrays_with_names_and_labels(tmp_path: Path) -> None:
    owners, names = np.array([1, 0, 1]), np.array(["ann", "bo"])
    path = saved(tmp_path / "a.npz", images=PIXELS, writer=owners, writer_names=names, digit=np.array([7, -1, 0]))
    records = images(path, client_key=("writer",), unit="image")
    assert [r.client for r in records] == ["bo", "ann", "bo"]
    assert [r.value.label for r in records] == [7, -1, 0]
    assert all(np.array_equal(r.value.pixels, p) for r, p in zip(records, PIXELS, strict=True))
    assert [r.value.label for r in images(path, label_field="writer")] == [1, 0, 1]


def test_bits_are_the_bits_of_packbits(tmp_path: Path) -> None:
    bits = PIXELS > 127
    packed = np.packbits(bits.reshape(3, -1), axis=1)
    path = saved(tmp_path / "a.npz", packed=packed, shape=np.array([4, 5]))
    assert all(np.array_equal(r.value.pixels, b * 255) for r, b in zip(images(path), bits, strict=True))


def test_other_pixel_types_and_colours(tmp_path: Path) -> None:
    floats = saved(tmp_path / "f.npz", images=PIXELS / np.float32(255))
    assert all(np.array_equal(r.value.pixels, p) for r, p in zip(images(floats), PIXELS, strict=True))
    truth = saved(tmp_path / "b.npz", images=PIXELS > 127)
    assert {int(v) for r in images(truth) for v in np.unique(r.value.pixels)} == {0, 255}
    grey = np.repeat(PIXELS[..., None], 3, axis=3)
    colour = saved(tmp_path / "c.npz", images=grey)
    assert all(np.array_equal(r.value.pixels, p) for r, p in zip(images(colour), PIXELS, strict=True))


def test_a_folder_names_client_and_class(tmp_path: Path) -> None:
    for i, (owner, label) in enumerate([("ann", "zebra"), ("bo", "ape"), ("bo", "zebra")]):
        folder = tmp_path / owner / label
        folder.mkdir(parents=True)
        save_picture(PIXELS[i], folder / f"{i}.png")
    records = images(tmp_path, client_key=("client",), unit="class")
    assert [(r.client, r.unit) for r in records] == [("ann", "zebra"), ("bo", "ape"), ("bo", "zebra")]
    assert {r.value.label for r in records} == {-1}, "a number read off the folders would depend on everybody's"
    assert np.array_equal(records[0].value.pixels, PIXELS[0])
    assert [r.value.label for r in images(tmp_path, classes=("zebra", "cat", "ape"))] == [0, 2, 0]
    assert "data.classes" in refused(tmp_path, classes=("zebra",))
    assert "max_pixels" in refused(tmp_path, DataLimitError, max_pixels=19)
    save_picture(PIXELS[0].T, tmp_path / "bo" / "zebra" / "turned.png")
    assert "another shape" in refused(tmp_path)


def test_one_picture_more_changes_no_other_record(tmp_path: Path) -> None:
    for label in ("bat", "cow"):
        (tmp_path / "ann" / label).mkdir(parents=True)
        save_picture(PIXELS[0], tmp_path / "ann" / label / "0.png")
    settings: dict[str, Any] = {"client_key": ("client",), "classes": ("ant", "bat", "cow")}
    before = [(r.client, r.value.label) for r in images(tmp_path, **settings)]
    (tmp_path / "ann" / "ant").mkdir()
    save_picture(PIXELS[0], tmp_path / "ann" / "ant" / "0.png")
    after = [(r.client, r.value.label) for r in images(tmp_path, **settings)]
    assert after == [("ann", 0), *before]


def test_training_on_classes_needs_their_public_names(tmp_path: Path) -> None:
    save_picture(PIXELS[0], tmp_path / "a.png")
    data = DataConfig(reader="images", path=str(tmp_path))
    with pytest.raises(ConfigError, match=r"data\.classes"):
        readers.refuse_unfit(data, needs_labels=True)
    readers.refuse_unfit(data, needs_labels=False)
    readers.refuse_unfit(data.model_copy(update={"classes": ("a",)}), needs_labels=True)
    readers.refuse_unfit(DataConfig(reader="images", path=str(saved(tmp_path / "f.npz"))), needs_labels=True)


def test_a_picture_cut_off_is_refused(tmp_path: Path) -> None:
    save_picture(PIXELS[0], tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[: len(content) // 2])
    assert "a.png" in refused(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"pictures": PIXELS}, "neither an array 'images'"),
        ({"images": PIXELS[0]}, "not of shape"),
        ({"images": np.zeros((0, 4, 5), np.uint8)}, "not of shape"),
        ({"images": np.zeros((2, 4, 5, 7), np.uint8)}, "not of shape"),
        ({"images": PIXELS.astype(str)}, "not of shape"),
        ({"images": -PIXELS.astype(np.int16) - 1}, "a pixel outside 0..255"),
        ({"images": PIXELS.astype(np.int64) + 1000}, "a pixel outside 0..255"),
        ({"images": np.full((1, 4, 5), np.nan)}, "a pixel outside 0..1"),
        ({"images": np.full((1, 4, 5), np.inf)}, "a pixel outside 0..1"),
        ({"images": PIXELS, "label": np.array([0, -2, 1])}, "not one label"),
        ({"images": PIXELS, "label": np.array([0, 1])}, "not one label"),
        ({"images": PIXELS, "label": np.array([0.5, 1, 2])}, "not one label"),
        ({"images": PIXELS, "label": np.zeros(3, int), "writer": np.array([0, -1, 1])}, "a negative id"),
        (
            {"images": PIXELS, "label": np.zeros(3, int), "writer": np.arange(3), "writer_names": np.array(["a", "b"])},
            "beyond the end",
        ),
        ({"packed": np.zeros((2, 3), np.uint8), "shape": np.array([4, 6, 1])}, "not two positive"),
        ({"packed": np.zeros((2, 3), np.uint8), "shape": np.array([-4, -6])}, "not two positive"),
        ({"packed": np.zeros((2, 2), np.uint8), "shape": np.array([4, 6])}, "do not fit"),
    ],
)
def test_unfit_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], words: str) -> None:
    settings = {"client_key": ("writer",)} if "writer" in arrays else {}
    assert words in refused(saved(tmp_path / "a.npz", **arrays), **settings)


def test_missing_fields_name_the_nearest(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", images=PIXELS, writer=np.arange(3))
    assert "did you mean 'writer'?" in refused(path, client_key=("writr",))
    assert "did you mean 'writer'?" in refused(path, label_field="writr")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.npz", images=np.array([{"a": 1}], dtype=object))
    assert "damaged" in refused(path)


def _header_says(path: Path, shape: str, size: int) -> Path:
    """A .npz whose header promises more than there is."""
    member = io.BytesIO()
    header = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}"
    np.lib.format.write_array_header_1_0(member, {"descr": "|u1", "fortran_order": False, "shape": (1,)})
    start = member.getvalue()[:10]
    member = io.BytesIO(start + header.ljust(len(member.getvalue()) - 11).encode() + b"\n" + b"\0" * size)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", member.getvalue())
    return path


@pytest.mark.parametrize("shape", ["(1000000, 1000000, 1000)", "(-1, 4, 5)", "(3, 4)", "(2, 4, 5)"])
def test_a_header_that_lies_takes_no_memory(tmp_path: Path, shape: str) -> None:
    assert "damaged" in refused(_header_says(tmp_path / "a.npz", shape, 60))


def test_a_zip_bomb_is_refused_by_its_size(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    np.savez_compressed(path, images=np.zeros((64, 256, 256), np.uint8))
    assert path.stat().st_size < 50_000
    assert "max_array_bytes" in refused(path, DataLimitError, max_array_bytes=1_000_000)


@pytest.mark.data
def test_omniglot(data_file: Any) -> None:
    records = images(data_file("images/omniglot_small.npz"), client_key=("alphabet", "drawer"), unit="image")
    assert len(records) == len({r.unit for r in records}) == 4_840
    assert len({r.client for r in records}) == 160
    assert {r.value.label for r in records} == set(range(242))
    assert records[0].value.pixels.shape == (105, 105)
