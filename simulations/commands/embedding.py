"""Vectors made by a released encoder from images that the caller brings."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from common.errors import UsageError

if TYPE_CHECKING:
    from common.release import Release
    from common.table import EmbeddingTable


def embedded(release: Release, data: Path) -> EmbeddingTable:
    """One row an image of ``data`` (a file or folder that the reader ``images`` takes).

    Keys are the pictures' paths inside ``data`` without suffixes; images of an array have ``file/number``.

    Raises:
        UsageError: the release holds no encoder.
        DataError: the images cannot be read.
    """
    import numpy as np

    from client import readers
    from common import families
    from common.config import DataConfig
    from common.families.image import embed
    from common.table import EmbeddingTable

    if not release.model_config:
        raise UsageError("this release holds tables and no encoder", remedy="Leave --data out.")
    options = families.load(release.model_config["family"]).Options.model_validate(release.model_config["options"])
    parameters = {name: array.astype(np.float32) for name, array in release.model.items()}
    records = list(readers.read(DataConfig(reader="images", path=str(data), unit="image")))
    of_file = Counter(record.client for record in records)
    seen: Counter[str] = Counter()
    keys = []
    for name in (record.client for record in records):
        keys.append(name if of_file[name] == 1 else f"{name}/{seen[name]}")
        seen[name] += 1
    return EmbeddingTable(tuple(keys), embed(parameters, [record.value.pixels for record in records], options))
