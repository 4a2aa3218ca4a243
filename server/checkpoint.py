"""What a run needs to continue: an atomic checkpoint, and a journal of attempts that is durable before each round."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from numpy.typing import NDArray

from common.errors import CheckpointError
from common.files import atomic_files, disk_errors, storage_error
from common.table import FloatArray, IntArray

_SELECTED = "selected/rows"
_DIGEST_BYTES = 32
_STATE = "state.safetensors"


@dataclass
class RunState:
    """Everything that changes from round to round.

    Attributes:
        round: rounds applied so far.
        parameters: current global parameters (noised wherever the plan adds noise).
        optimizer: arrays of the server optimizer.
        history: one mapping of public facts a round.
        selected: rows that clients selected last, where they vote on rows.
    """

    round: int
    parameters: dict[str, FloatArray]
    optimizer: dict[str, FloatArray] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    selected: IntArray | None = None


class CheckpointDirectory:
    """One run's checkpoint and journal.

    The directory belongs to one scenario digest; another scenario is refused rather than mixed in.

    Attributes:
        run_id: 32 hexadecimal digits, drawn when the directory was first used.

    Raises:
        CheckpointError: the directory belongs to another scenario or seed.
        StorageError: it cannot be made.
    """

    def __init__(self, directory: Path, run_digest: str) -> None:
        self._state_path = directory / _STATE
        self._journal_path = directory / "journal.jsonl"
        self._lock_path = directory / "lock"
        self._digest = run_digest
        with disk_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        self.run_id = self._own_run_id(directory / "run-id")

    def _own_run_id(self, path: Path) -> str:
        """A random name of this run, kept on disk: ledgers tell runs apart by it, also two of one scenario.

        Beside it stands the scenario's digest, so that a folder belongs to its run before the first checkpoint.
        """
        if not path.exists():
            with atomic_files(path) as (partial,):
                partial.write_text(f"{secrets.token_hex(16)}\n{self._digest}\n")
        run_id, _, owner = path.read_text(errors="replace").strip().partition("\n")
        if owner != self._digest:
            raise CheckpointError(f"{path.parent} holds a run of another scenario or seed")
        return run_id

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """One process at a time computes this run: two would each ask clients for attempts of their own.

        Raises:
            CheckpointError: another one does.
        """
        with disk_errors(self._lock_path):
            lock = self._lock_path.open("w")
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise CheckpointError(
                    f"another process works on the run in {self._lock_path.parent}",
                    remedy="Wait for its end, or stop it; then resume.",
                ) from None
            except OSError as error:
                raise storage_error(self._lock_path, error) from None
            yield

    def save(self, state: RunState) -> None:
        """Replace the checkpoint: complete on disk before the old one goes.

        Raises:
            StorageError: the disk is full or not writable; the earlier checkpoint is untouched.
        """
        from safetensors.numpy import save

        arrays: dict[str, NDArray[Any]] = {f"parameter/{n}": v for n, v in state.parameters.items()}
        arrays |= {f"optimizer/{n}": v for n, v in state.optimizer.items()}
        if state.selected is not None:
            arrays[_SELECTED] = state.selected
        facts = json.dumps({"round": state.round, "history": state.history})
        content = save(arrays, metadata={"run": self._digest, "facts": facts})
        with atomic_files(self._state_path) as (partial,):
            partial.write_bytes(hashlib.sha256(content).digest() + content)

    def load(self) -> RunState | None:
        """The last checkpoint, or ``None`` when there is none.

        Raises:
            CheckpointError: damaged, or of another run.
        """
        if not self._state_path.exists():
            return None
        raw = self._state_path.read_bytes()
        digest, content = raw[:_DIGEST_BYTES], raw[_DIGEST_BYTES:]
        if hashlib.sha256(content).digest() != digest:
            raise CheckpointError(f"{self._state_path} is damaged", remedy="Remove the directory and start again.")
        metadata = _metadata(io.BytesIO(content))
        if metadata.get("run") != self._digest:
            raise CheckpointError(f"{self._state_path.parent} holds a run of another scenario or seed")
        from safetensors.numpy import load

        facts = json.loads(metadata["facts"])
        arrays = {n: v.copy() for n, v in load(content).items()}
        parts = _part(arrays, "parameter/"), _part(arrays, "optimizer/")
        return RunState(facts["round"], *parts, history=facts["history"], selected=arrays.get(_SELECTED))

    def begin_attempt(self, round_number: int) -> int:
        """Record, durably, that round ``round_number`` is about to be computed; returns the attempt's number."""
        attempt = sum(1 for entry in self.attempts() if entry["round"] == round_number) + 1
        line = json.dumps({"round": round_number, "attempt": attempt}) + "\n"
        with disk_errors(self._journal_path), self._journal_path.open("a") as journal:
            journal.write(line if self._ends_whole() else "\n" + line)
            journal.flush()
            os.fsync(journal.fileno())
        return attempt

    def _ends_whole(self) -> bool:
        """Whether the journal's last line has its end: what a full disk cut off must not swallow the next one."""
        return self._journal_path.read_bytes()[-1:] in (b"", b"\n")

    def attempts(self) -> list[dict[str, int]]:
        """Every attempt begun so far, in order.

        A line cut off by a crash was never acknowledged, so no client was asked to compute for it.
        """
        if not self._journal_path.exists():
            return []
        entries = []
        for line in self._journal_path.read_text(errors="replace").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                entries.append(json.loads(line))
        return entries


def last_round(directory: Path) -> int:
    """The round of the checkpoint in a directory, by its header alone; 0 where there is none that can be read."""
    try:
        with (directory / _STATE).open("rb") as file:
            file.seek(_DIGEST_BYTES)
            return int(json.loads(_metadata(file)["facts"])["round"])
    except (OSError, ValueError, KeyError, OverflowError):
        return 0


def _metadata(file: BinaryIO) -> Mapping[str, str]:
    """The texts in the header of a safetensors file, from where the file stands."""
    size = int.from_bytes(file.read(8), "little")
    return json.loads(file.read(size)).get("__metadata__", {})


def _part(arrays: Mapping[str, FloatArray], prefix: str) -> dict[str, FloatArray]:
    return {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}
