"""The row domain of a run: public keys with their counts, or hash buckets. Never read off anybody's data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from common.config import VocabularyConfig
from common.discovery import nearest
from common.errors import DataError, DataFormatError, DataLimitError
from common.public_text import stdlib_word_counts
from common.table import RowDomain

SHIPPED = {"python-stdlib": stdlib_word_counts}
MAX_KEY_CHARACTERS = 10_000
_CHECK = "Check [vocabulary] path: a file of key<TAB>count lines, or a shipped name."
_REPAIR = "Repair the vocabulary file at the line named."


def row_domain(config: VocabularyConfig) -> RowDomain:
    """The keys that ``[vocabulary]`` names: the ``max_rows`` most frequent with at least ``min_count``.

    ``path`` is a file of ``key<TAB>count`` lines (a line without a count has count 1), or the name of a public
    vocabulary that every installation has. Keys of equal count keep their order in the file.

    Raises:
        DataError: no such file or name, or nothing is left.
        DataFormatError, DataLimitError: a line is malformed or too long; names the line.
    """
    if config.source == "hashed":
        return RowDomain(tuple(f"bucket:{i}" for i in range(config.buckets)), source="hashed")
    counts = SHIPPED[config.path]() if config.path in SHIPPED else _read(Path(config.path))
    kept = [(key, n) for key, n in counts.items() if n >= config.min_count]
    kept = sorted(kept, key=lambda item: -item[1])[: config.max_rows]
    if not kept:
        raise DataError(
            f"vocabulary {config.path!r} has no key with a count of at least {config.min_count}",
            remedy="Lower vocabulary.min_count, or give a file with keys.",
        )
    keys, frequencies = zip(*kept, strict=True)
    return RowDomain(tuple(keys), np.array(frequencies, dtype=np.float64), source=f"public: {Path(config.path).name}")


def _read(path: Path) -> Mapping[str, float]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise DataFormatError(f"vocabulary {path} is not UTF-8 text", remedy="Convert the file to UTF-8.") from None
    except OSError as error:
        hint = nearest(str(path), list(SHIPPED))
        raise DataError(f"cannot read vocabulary {path}: {error.strerror}{hint}", remedy=_CHECK) from None
    counts: dict[str, float] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            key, count = _parsed(line, f"vocabulary {path}, line {number}")
            if key in counts:
                raise DataFormatError(f"vocabulary {path}, line {number}: key occurs twice", remedy=_REPAIR)
            counts[key] = count
    return counts


def _parsed(line: str, where: str) -> tuple[str, float]:
    key, tab, text = line.partition("\t")
    try:
        count = float(text) if tab else 1.0
    except ValueError:
        raise DataFormatError(f"{where}: the count is not a number", remedy=_REPAIR) from None
    if not tab and " " in key.strip():
        raise DataFormatError(f"{where}: a blank and no tab: is a count meant?", remedy=_REPAIR)
    if not key or not 0 < count < float("inf"):
        raise DataFormatError(f"{where}: need a key, a tab and a positive finite count", remedy=_REPAIR)
    if len(key) > MAX_KEY_CHARACTERS:
        raise DataLimitError(f"{where}: a key of more than {MAX_KEY_CHARACTERS:,} characters", remedy=_REPAIR)
    return key, count
