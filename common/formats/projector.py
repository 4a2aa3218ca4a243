"""TensorBoard projector: a folder with ``tensors.tsv`` and ``metadata.tsv``, without headers, row for row.

Load both files at projector.tensorflow.org, or point TensorBoard at the folder (``projector_config.pbtxt`` names them).
The projector drops blank lines, so a key that shows nothing is written in words or as escapes.
"""

from __future__ import annotations

from pathlib import Path

from common.errors import DataFormatError
from common.files import atomic_files, disk_errors
from common.formats import Format
from common.formats._checks import refuse_non_finite, utf8
from common.table import EmbeddingTable

_CONFIG = 'embeddings {\n  tensor_path: "tensors.tsv"\n  metadata_path: "metadata.tsv"\n}\n'
_ESCAPES = str.maketrans({"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"})


def _label(key: str) -> bytes:
    if not key:
        return b"(empty key)"
    if not key.strip():
        return "".join(f"\\u{ord(character):04x}" for character in key).encode()
    return utf8(key.translate(_ESCAPES))


def _write(table: EmbeddingTable, path: Path) -> None:
    refuse_non_finite(table)
    labels = b"".join(_label(key) + b"\n" for key in table.keys)
    if path.exists() and not path.is_dir():
        raise DataFormatError(f"{path} is a file; the projector needs a folder", remedy="Give a new folder as --out.")
    numbers = "\t".join(["%.9g"] * table.dimensions) + "\n"
    made = not path.exists()
    try:
        with disk_errors(path):
            path.mkdir(exist_ok=True)
        files = [path / name for name in ("metadata.tsv", "projector_config.pbtxt", "tensors.tsv")]
        with atomic_files(*files) as (metadata, config, tensors):
            metadata.write_bytes(labels)
            config.write_text(_CONFIG)
            with tensors.open("w", encoding="ascii", newline="\n") as file:
                file.writelines(numbers % tuple(row.tolist()) for row in table.vectors)
    finally:
        # Only a failure leaves the new folder empty.
        if made and path.is_dir() and not any(path.iterdir()):
            path.rmdir()


FORMAT = Format(
    name="projector",
    suffix="",
    summary="folder for the TensorBoard embedding projector",
    write=_write,
)
