"""The client and the unit of a record, from its fields and the ``[data]`` section."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.readers._limits import Place
from common.config import DataConfig
from common.discovery import nearest
from common.errors import DataFormatError


@dataclass(frozen=True)
class Keys:
    """How records are keyed.

    Attributes:
        client_key: fields whose values name the client; empty: the file does.
        unit: the unit as configured.
        per_record: the reader's words for "every record is a unit"; where the data have a field of that name, its
            values are the units: to cut them up would protect less than the word says.
    """

    client_key: tuple[str, ...]
    unit: str
    per_record: tuple[str, ...]

    @classmethod
    def of(cls, data: DataConfig, *per_record: str) -> Keys:
        return cls(data.client_key, data.unit, ("record", *per_record))

    def client(self, fields: Mapping[str, Any], place: Place) -> str:
        """The client of a record. Values of several fields are escaped, so that no two clients fall together."""
        if not self.client_key:
            return str(fields["file"])
        parts = [field(fields, name, place) for name in self.client_key]
        if len(parts) == 1:
            return parts[0]
        return "/".join(p.replace("%", "%25").replace("/", "%2F") for p in parts)

    def unit_of(self, fields: Mapping[str, Any], client: str, number: int, place: Place) -> str:
        """The unit of record ``number`` (counted over the whole read, so it is unique)."""
        if self.unit == "client":
            return client
        if self.unit in self.per_record and self.unit not in fields:
            return str(number)
        return field(fields, self.unit, place, other_names=("client", *self.per_record))


def field(fields: Mapping[str, Any], name: str, place: Place, *, other_names: tuple[str, ...] = ()) -> str:
    """The value of a field as a key: a string, whole number, finite float or truth value.

    ``other_names`` are words that may have been meant instead of a field.

    Raises:
        DataFormatError: the field is missing (with the nearest one), empty, or holds something else.
    """
    if name not in fields:
        raise DataFormatError(
            f"{place}: no field {name!r}{nearest(name, [*sorted(fields), *other_names])}",
            remedy="Correct data.client_key, data.unit or the field named in [data].",
        )
    value = fields[name]
    if isinstance(value, str) and value and not value.isspace():
        return value
    if isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return json.dumps(value)
    raise DataFormatError(f"{place}: field {name!r} is empty or not a plain value")


def virtual_fields(name: str) -> dict[str, str]:
    """``file`` and ``folder`` of a file called ``name`` inside the data path."""
    return {"file": name, "folder": name.rpartition("/")[0]}
