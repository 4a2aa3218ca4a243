"""Images: arrays in .npz files, or folders of picture files.

* ``.npz``: ``images`` of shape (N, H, W) or (N, H, W, 3), uint8, truth values, or floats in [0, 1]; or ``packed`` of
  shape (N, ceil(H * W / 8)) as ``numpy.packbits`` makes it, with ``shape`` = (H, W), 1 = ink. Every other array of
  length N is a field, to be used as key or label; where ``<name>_names`` exists, numbers are replaced by names in
  keys. The label is ``label_field``, or the first of label, class, category, character, digit, y that exists.
* folders: ``client/class/picture.png`` (also .jpg, .jpeg, .bmp): fields ``client`` and ``class`` from the first two
  levels. A label is a class's place in ``classes``, which is public; without ``classes`` there are no labels: numbers
  read off the folders that are there would let one picture in a new folder change every other picture's label.

Colours become grey (ITU-R BT.601 luma). All images of one read have one shape. Units: ``record`` and ``image``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from client.readers._arrays import load_arrays
from client.readers._keys import Keys, virtual_fields
from client.readers._limits import Place, files, suffix_of
from client.readers._pictures import PICTURE_SUFFIXES, load_picture
from common.config import DataConfig
from common.discovery import nearest
from common.errors import ConfigError, DataFormatError, DataLimitError
from common.units import Image, Record

_LABELS = ("label", "class", "category", "character", "digit", "y")
_LUMA = np.array([0.299, 0.587, 0.114])


class ImagesReader:
    """Yields records whose value is an ``Image``."""

    name = "images"
    records = "images"
    suffixes = (".npz", *PICTURE_SUFFIXES)

    def read(self, data: DataConfig) -> Iterator[Record]:
        """See ``Reader.read``."""
        keys = Keys.of(data, "image")
        shape: tuple[int, ...] | None = None
        number = 0
        found = files(data.path, self.suffixes)
        for path, name in found:
            place = Place(path)
            many = _from_arrays(path, data) if suffix_of(path) == ".npz" else _from_picture(path, name, data)
            for image, fields in many:
                shape = shape or image.pixels.shape
                if image.pixels.shape != shape:
                    raise DataFormatError(f"{place}: image {number} has another shape than those before it")
                fields = {**virtual_fields(name), **fields}
                client = keys.client(fields, place)
                yield Record(client, keys.unit_of(fields, client, number, place), image)
                number += 1

    def samples(self, directory: Path) -> Sequence[DataConfig]:
        """See ``Reader.samples``."""
        from client.readers._pictures import save_picture

        rng = np.random.default_rng(5)
        pixels = rng.integers(0, 256, size=(6, 5, 7), dtype=np.uint8)
        owner, label = np.array([0, 1, 0, 1, 1, 0]), np.array([0, 1, 2, 0, 1, 2])
        names = np.array(["ann", "bo"])
        np.savez(directory / "arrays.npz", images=pixels, writer=owner, writer_names=names, label=label)
        packed = np.packbits((pixels > 127).reshape(6, -1), axis=1)
        shape = np.array([5, 7])
        np.savez_compressed(directory / "packed.npz", packed=packed, shape=shape, writer=owner, character=label)
        for i in range(6):
            folder = directory / "tree" / str(names[owner[i]]) / f"class{label[i]}"
            folder.mkdir(parents=True, exist_ok=True)
            save_picture(pixels[i], folder / f"{i}.png")
        arrays, bits, tree = (str(directory / name) for name in ("arrays.npz", "packed.npz", "tree"))
        return (
            DataConfig(reader=self.name, path=arrays, client_key=("writer",), unit="image"),
            DataConfig(reader=self.name, path=bits, client_key=("writer",), unit="image"),
            DataConfig(reader=self.name, path=tree, client_key=("client",), unit="image"),
        )


def refuse_unlabelled_pictures(data: DataConfig) -> None:
    """Raise ``ConfigError`` where every record would be a picture whose class has no public number."""
    found = files(data.path, ImagesReader.suffixes)
    if not data.classes and all(suffix_of(path) != ".npz" for path, _ in found):
        raise ConfigError(
            "pictures in folders have labels only where data.classes names the classes",
            remedy="Name them in data.classes (the list is public), or set task.objective = 'rotation'.",
        )


def _from_picture(path: Path, name: str, data: DataConfig) -> Iterator[tuple[Image, Mapping[str, Any]]]:
    levels = name.split("/")
    fields = {"client": levels[0]} if len(levels) > 1 else {}
    label = -1
    if len(levels) > 2:
        fields["class"] = levels[1]
        if data.classes and levels[1] not in data.classes:
            raise DataFormatError(
                f"{path}: its class folder is not among data.classes{nearest(levels[1], [*data.classes])}"
            )
        label = data.classes.index(levels[1]) if data.classes else -1
    yield Image(load_picture(path, data.max_pixels), label), fields


def _from_arrays(path: Path, data: DataConfig) -> Iterator[tuple[Image, Mapping[str, Any]]]:
    arrays = load_arrays(path, data.max_array_bytes)
    place = Place(path)
    count, pixels_of = _pixel_source(arrays, data.max_pixels, place)
    labels = _labels(arrays, data.label_field, count, place)
    columns = {n: a for n, a in arrays.items() if a.shape == (count,) and not n.endswith("_names")}
    for name in columns.keys() & {*data.client_key, data.unit}:
        columns[name] = _named(columns[name], arrays.get(f"{name}_names"), place)
    for i in range(count):
        yield Image(pixels_of(i), int(labels[i])), {name: column[i].item() for name, column in columns.items()}


def _pixel_source(arrays: Mapping[str, NDArray[Any]], max_pixels: int, place: Place) -> tuple[int, Any]:
    if "images" in arrays:
        return _from_images(arrays["images"], max_pixels, place)
    if "packed" in arrays and "shape" in arrays:
        return _from_bits(arrays["packed"], arrays["shape"], max_pixels, place)
    raise DataFormatError(f"{place}: neither an array 'images' nor 'packed' with 'shape'")


def _from_images(images: NDArray[Any], max_pixels: int, place: Place) -> tuple[int, Any]:
    grey = images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3))
    if not grey or images.dtype.kind not in "biuf" or 0 in images.shape:
        raise DataFormatError(f"{place}: 'images' is not of shape (N, H, W) or (N, H, W, 3) with N, H, W > 0")
    _check_pixels(images.shape[1] * images.shape[2], max_pixels, place)
    return len(images), lambda i: _grey(images[i], place)


def _grey(image: NDArray[Any], place: Place) -> NDArray[np.uint8]:
    high = 1 if image.dtype.kind in "bf" else 255
    if not bool(np.all((image >= 0) & (image <= high))):  # also false for NaN
        raise DataFormatError(f"{place}: a pixel outside 0..{high}, or not a number")
    values = image * 255.0 if high == 1 else image
    if image.ndim == 3:
        values = values @ _LUMA if image.shape[2] == 3 else values[..., 0]
    return np.rint(values).astype(np.uint8) if values.dtype.kind == "f" else values.astype(np.uint8)


def _from_bits(packed: NDArray[Any], shape: NDArray[Any], max_pixels: int, place: Place) -> tuple[int, Any]:
    if shape.shape != (2,) or shape.dtype.kind not in "iu" or not bool(np.all(shape > 0)):
        raise DataFormatError(f"{place}: 'shape' is not two positive numbers")
    height, width = (int(n) for n in shape)
    _check_pixels(height * width, max_pixels, place)
    if packed.ndim != 2 or packed.dtype != np.uint8 or packed.shape[1] != -(-height * width // 8):
        raise DataFormatError(f"{place}: 'packed' and 'shape' do not fit together")

    def unpacked(i: int) -> NDArray[np.uint8]:
        bits = np.unpackbits(packed[i], count=height * width).reshape(height, width)
        return bits * np.uint8(255)

    return len(packed), unpacked


def _check_pixels(pixels: int, max_pixels: int, place: Place) -> None:
    if pixels > max_pixels:
        raise DataLimitError(
            f"{place}: images of more than {max_pixels:,} pixels (data.max_pixels)",
            remedy="Scale the images down, or raise data.max_pixels.",
        )


def _labels(arrays: Mapping[str, NDArray[Any]], named: str, count: int, place: Place) -> NDArray[Any]:
    name = named or next((n for n in _LABELS if n in arrays), "")
    if not name:
        return np.full(count, -1)
    if name not in arrays:
        raise DataFormatError(
            f"{place}: no array {name!r}{nearest(name, list(arrays))}", remedy="Set data.label_field."
        )
    labels = arrays[name]
    if labels.shape != (count,) or labels.dtype.kind not in "biu" or bool(np.any(labels.astype(np.int64) < -1)):
        raise DataFormatError(f"{place}: {name!r} is not one label (-1 for none, 0, 1, ...) an image")
    return labels


def _named(ids: NDArray[Any], names: NDArray[Any] | None, place: Place) -> NDArray[Any]:
    """A key column, its numbers replaced by names where the file has them."""
    if ids.dtype.kind not in "iu":
        return ids
    if bool(np.any(ids < 0)):
        raise DataFormatError(f"{place}: a negative id in a key array")
    if names is None or names.ndim != 1:
        return ids
    if bool(np.any(ids >= len(names))):
        raise DataFormatError(f"{place}: an id beyond the end of its array of names")
    return names[ids]


READER = ImagesReader()
