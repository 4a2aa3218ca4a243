"""Messages as plain payloads: named arrays and a flat configuration, encoded and checked in one place.

Nothing here knows Flower; ``pack`` is handed Flower's record classes by the apps. Every decoder is total: a malformed
payload raises ``WireError`` and nothing else.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from common.errors import ConfigError, WireError
from common.table import FloatArray, IntArray, RowDomain
from common.update import Parameters, ParameterSpec, RowBatch, UpdateBatch

PROTOCOL = "fedembed/1"
SERIALIZED = "numpy.ndarray"  # Flower's name for the bytes of an .npy file

# What became of one client in one round (int8 on the wire).
OK, REFUSED, FAILED, DROPPED, LATE = range(5)
STATUS_NAMES = ("ok", "refused", "failed", "dropped", "late")


@dataclass(frozen=True)
class Payload:
    """One message: ``config`` holds str, int, float, bool, bytes and lists of them; ``arrays`` holds ndarrays."""

    config: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        """Bytes in the arrays, and in the byte strings, texts and lists of the configuration; a number is for free.

        A list could be of any length, so each of its numbers counts as eight bytes.
        """
        return sum(array.nbytes for array in self.arrays.values()) + sum(map(_weight, self.config.values()))

    def text(self, key: str) -> str:
        """String ``key``. Raises ``WireError`` if absent or of another type."""
        return self._typed(key, str)

    def integer(self, key: str) -> int:
        """Integer ``key``. Raises ``WireError`` if absent or of another type."""
        return self._typed(key, int)

    def _typed(self, key: str, kind: type) -> Any:
        value = self.config.get(key)
        if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
            raise WireError(f"field {key!r} is missing or not of type {kind.__name__}")
        return value

    def texts(self, key: str) -> list[str]:
        """List of strings ``key``; an absent one is empty. Raises ``WireError`` if it holds anything else."""
        value = self.config.get(key, [])
        if not isinstance(value, (list, tuple)) or not all(isinstance(item, str) for item in value):
            raise WireError(f"field {key!r} is not a list of texts")
        return list(value)

    def array(self, key: str, dtype: Any, ndim: int) -> NDArray[Any]:
        """Array ``key`` with exactly this dtype and number of axes. Raises ``WireError``."""
        value = self.arrays.get(key)
        if value is None or value.dtype != np.dtype(dtype) or value.ndim != ndim:
            raise WireError(f"array {key!r} is missing or not {np.dtype(dtype)} with {ndim} axes")
        return value


def _weight(value: Any) -> int:
    if isinstance(value, (list, tuple)):
        return sum(len(item) if isinstance(item, (bytes, str)) else 8 for item in value)
    return len(value) if isinstance(value, (bytes, str)) else 0


def pack(payload: Payload, records: Any) -> Any:
    """A Flower ``RecordDict``; ``records`` is the module ``flwr.app``."""
    arrays = records.ArrayRecord({k: _encoded(np.ascontiguousarray(v), records) for k, v in payload.arrays.items()})
    return records.RecordDict({"arrays": arrays, "config": records.ConfigRecord(dict(payload.config))})


def unpack(record: Any) -> Payload:
    """Inverse of ``pack`` for anything that looks like a ``RecordDict``. Raises ``WireError``."""
    try:
        arrays = {name: _decoded(array) for name, array in record["arrays"].items()}
        payload = Payload(dict(record["config"]), arrays)
    except (KeyError, TypeError, ValueError, AttributeError, EOFError) as error:
        raise WireError(f"not a fedembed message ({type(error).__name__})") from None
    if payload.config.get("protocol") != PROTOCOL:
        raise WireError(f"the other side does not speak {PROTOCOL}")
    return payload


def _encoded(array: NDArray[Any], records: Any) -> Any:
    """What ``records.Array(array)`` makes, with the values copied once instead of three times."""
    if array.dtype.kind not in "biuf":
        return records.Array(array)
    header = io.BytesIO()
    npy.write_array_header_1_0(header, npy.header_data_from_array_1_0(array))
    data = b"".join((header.getvalue(), array.data))
    return records.Array(str(array.dtype), tuple(array.shape), SERIALIZED, data)


def _decoded(array: Any) -> NDArray[Any]:
    """What ``array.numpy()`` reads, as a read-only view of the message; anything unusual is left to that method."""
    stream = io.BytesIO(array.data)
    if array.stype != SERIALIZED or npy.read_magic(stream) != (1, 0):
        return array.numpy()
    shape, in_columns, dtype = npy.read_array_header_1_0(stream)
    if in_columns or dtype.hasobject or min(shape, default=0) < 0:
        return array.numpy()
    values = np.frombuffer(array.data, dtype, math.prod(shape), offset=stream.tell())
    return values.reshape(shape)


def array_bytes(payload: Payload) -> bytes:
    """The arrays of a payload as the bytes of an ``.npz`` without pickled objects."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = dict(payload.arrays)
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def arrays_from_bytes(data: bytes) -> dict[str, NDArray[Any]]:
    """Inverse of ``array_bytes``. Raises ``WireError``."""
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, EOFError) as error:
        raise WireError(f"stored arrays are damaged ({type(error).__name__})") from None


def encode_blobs(blobs: Sequence[bytes]) -> dict[str, NDArray[Any]]:
    """Byte strings, one after the other, and their lengths."""
    return {
        "blobs/bytes": np.frombuffer(b"".join(blobs), dtype=np.uint8),
        "blobs/lengths": np.array([len(blob) for blob in blobs], dtype=np.int64),
    }


def decode_blobs(payload: Payload, count: int) -> list[bytes]:
    """Inverse of ``encode_blobs`` for exactly ``count`` byte strings. Raises ``WireError``."""
    lengths = payload.array("blobs/lengths", np.int64, 1)
    data = payload.array("blobs/bytes", np.uint8, 1)
    if len(lengths) != count or (count and lengths.min() < 0) or int(lengths.sum()) != len(data):
        raise WireError(f"a message does not hold {count} byte strings")
    ends = np.cumsum(lengths)
    return [data[end - size : end].tobytes() for end, size in zip(ends.tolist(), lengths.tolist(), strict=True)]


def encode_domain(domain: RowDomain | None) -> Payload:
    """A row domain; ``None`` (encoders) is an empty payload."""
    if domain is None:
        return Payload()
    encoded = [key.encode() for key in domain.keys]
    arrays: dict[str, NDArray[Any]] = {
        "domain/bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8),
        "domain/lengths": np.array([len(k) for k in encoded], dtype=np.int64),
    }
    if domain.frequencies is not None:
        arrays["domain/frequencies"] = domain.frequencies
    return Payload({"domain_source": domain.source, "domain_digest": domain.digest}, arrays)


def decode_domain(payload: Payload) -> RowDomain | None:
    """Inverse of ``encode_domain``. Raises ``WireError``."""
    if "domain/bytes" not in payload.arrays:
        return None
    lengths = payload.array("domain/lengths", np.int64, 1)
    raw = payload.array("domain/bytes", np.uint8, 1).tobytes()
    if len(lengths) == 0 or lengths.min() < 0 or int(lengths.sum()) != len(raw):
        raise WireError("the lengths of the row keys do not fit their bytes")
    ends = np.cumsum(lengths)
    frequencies = payload.arrays.get("domain/frequencies")
    if frequencies is not None:
        frequencies = payload.array("domain/frequencies", np.float64, 1)
    try:
        keys = tuple(raw[end - n : end].decode() for n, end in zip(lengths, ends, strict=True))
        domain = RowDomain(keys, frequencies, payload.text("domain_source"))
    except (UnicodeDecodeError, ConfigError) as error:
        raise WireError(f"the row domain is not valid: {error}") from None
    if domain.digest != payload.text("domain_digest"):
        raise WireError("the row domain does not match its digest")
    return domain


def encode_parameters(parameters: Parameters, changed: Mapping[str, IntArray] | None) -> dict[str, NDArray[Any]]:
    """All parameters (``changed`` is ``None``), or the named rows of tables plus every other array whole."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, value in parameters.items():
        if changed is not None and name in changed:
            arrays[f"ids/{name}"] = changed[name]
            arrays[f"values/{name}"] = value[changed[name]]
        else:
            arrays[f"full/{name}"] = value
    return arrays


def decode_parameters(
    payload: Payload, specs: Sequence[ParameterSpec], base: Mapping[str, FloatArray] | None
) -> dict[str, FloatArray]:
    """Parameters in the shapes of ``specs``; row messages are applied to ``base`` in place.

    Raises:
        WireError: a missing array, a wrong shape, rows without a base or out of range.
    """
    result: dict[str, FloatArray] = {}
    for spec in specs:
        if f"full/{spec.name}" in payload.arrays:
            value = payload.array(f"full/{spec.name}", np.float32, len(spec.shape))
            if value.shape != spec.shape:
                raise WireError(f"parameter {spec.name!r} has shape {value.shape}, expected {spec.shape}")
            result[spec.name] = value.copy()  # later messages change its rows
        elif base is None:
            raise WireError(f"parameter {spec.name!r} is missing and no earlier version is held")
        else:
            ids = payload.array(f"ids/{spec.name}", np.int64, 1)
            values = payload.array(f"values/{spec.name}", np.float32, 2)
            if len(ids) and (ids.min() < 0 or ids.max() >= spec.shape[0]):
                raise WireError(f"row numbers of {spec.name!r} lie outside the table")
            if values.shape != (len(ids), spec.shape[1]):
                raise WireError(f"rows of {spec.name!r} have shape {values.shape}")
            base[spec.name][ids] = values
            result[spec.name] = base[spec.name]
    return result


def encode_updates(batch: UpdateBatch) -> dict[str, NDArray[Any]]:
    """The arrays of an UpdateBatch."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, table in batch.rows.items():
        arrays[f"offsets/{name}"], arrays[f"ids/{name}"] = table.offsets, table.ids
        arrays[f"values/{name}"] = table.values
    arrays.update({f"dense/{name}": value for name, value in batch.dense.items()})
    return arrays


def decode_updates(payload: Payload, specs: Sequence[ParameterSpec], count: int) -> UpdateBatch:
    """Inverse of ``encode_updates`` with every structural property checked.

    Values may still be non-finite or too large: that is judged per client, so one bad client spoils only itself.

    Raises:
        WireError: unknown, missing or mis-shaped arrays; row numbers out of range, unsorted or repeated.
    """
    rows: dict[str, RowBatch] = {}
    dense: dict[str, FloatArray] = {}
    known: set[str] = set()
    for spec in specs:
        if spec.is_table:
            known |= {f"{part}/{spec.name}" for part in ("offsets", "ids", "values")}
            if f"offsets/{spec.name}" in payload.arrays:
                rows[spec.name] = _decode_rows(payload, spec, count)
        else:
            known.add(f"dense/{spec.name}")
            value = payload.array(f"dense/{spec.name}", np.float32, len(spec.shape) + 1)
            if value.shape != (count, *spec.shape):
                raise WireError(f"dense update {spec.name!r} has shape {value.shape}")
            dense[spec.name] = value
    extra = [k for k in payload.arrays if k.split("/")[0] in {"offsets", "ids", "values", "dense"} and k not in known]
    if extra:
        raise WireError(f"{len(extra)} arrays belong to no parameter")
    return UpdateBatch(count, rows, dense)


def _decode_rows(payload: Payload, spec: ParameterSpec, count: int) -> RowBatch:
    offsets = payload.array(f"offsets/{spec.name}", np.int64, 1)
    ids = payload.array(f"ids/{spec.name}", np.int64, 1)
    values = payload.array(f"values/{spec.name}", np.float32, 2)
    if len(offsets) != count + 1 or offsets[0] != 0 or offsets[-1] != len(ids) or np.any(np.diff(offsets) < 0):
        raise WireError(f"offsets of {spec.name!r} do not describe {count} clients")
    if values.shape != (len(ids), spec.shape[1]):
        raise WireError(f"values of {spec.name!r} have shape {values.shape}")
    if len(ids):
        if ids.min() < 0 or ids.max() >= spec.shape[0]:
            raise WireError(f"row numbers of {spec.name!r} lie outside the table")
        step = np.diff(ids)
        starts = offsets[1:-1]
        inside = np.ones(len(ids) - 1, dtype=bool)
        inside[starts[(starts > 0) & (starts < len(ids))] - 1] = False
        if np.any(step[inside] <= 0):
            raise WireError(f"row numbers of {spec.name!r} are not strictly increasing")
    return RowBatch(offsets, ids, values)
