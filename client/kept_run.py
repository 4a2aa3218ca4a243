"""An admitted run on disk, for the process that serves the next message."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from common import wire
from common.errors import WireError
from common.files import atomic_files


class KeptRun:
    """What a run was announced with, and what the policy has said of it.

    A policy is asked at every message, and an accountant takes seconds to answer: the digest of a question that was
    answered with yes is kept, and everything that the answer depends on is part of the question.
    """

    def __init__(self, folder: Path, run: str) -> None:
        name = hashlib.sha256(run.encode()).hexdigest()[:32]  # the name of a run comes from outside
        self._files = folder / f"run-{name}.json", folder / f"run-{name}.npz"
        self._answers = folder / f"run-{name}."

    @property
    def exists(self) -> bool:
        """Whether the run was admitted."""
        return self._files[0].exists()

    def save(self, payload: wire.Payload, config: str) -> None:
        """Keep an announcement; ``config`` is its ``portable_config``."""
        with atomic_files(*self._files) as (text, arrays):
            text.write_text(config)
            arrays.write_bytes(wire.array_bytes(payload))

    def contents(self) -> tuple[bytes, bytes]:
        """Configuration and arrays as they stand on disk."""
        config, arrays = (path.read_bytes() for path in self._files)
        return config, arrays

    def said_yes(self, about: str, question: Iterable[bytes]) -> bool:
        """Whether exactly this question was the last one about something, and answered with yes."""
        path = self._path(about)
        return path.exists() and path.read_text() == _digest(question)

    def note_yes(self, about: str, question: Iterable[bytes]) -> None:
        """The answer was yes."""
        with atomic_files(self._path(about)) as (partial,):
            partial.write_text(_digest(question))

    def _path(self, about: str) -> Path:
        return self._answers.with_name(self._answers.name + about)


def portable_config(payload: wire.Payload) -> str:
    """The configuration of an announcement as text. Raises ``WireError`` where a field is none."""
    try:
        return json.dumps(dict(payload.config))
    except TypeError:
        raise WireError("an announcement holds texts and numbers alone") from None


def payload_of(config: bytes, arrays: bytes) -> wire.Payload:
    """The announcement that was kept."""
    return wire.Payload(json.loads(config), wire.arrays_from_bytes(arrays))


def _digest(question: Iterable[bytes]) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in question)).hexdigest()
