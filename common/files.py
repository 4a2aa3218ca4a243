"""Whole files or none: what is being written becomes visible only when it is complete and on the disk."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from common.errors import StorageError

_DISK_ERRORS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.ENOENT: "its folder does not exist",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EISDIR: "it is a folder",
    errno.EEXIST: "it is a file",
}
_PRIVATE_MODE = 0o600
_CHOOSE = "Choose another path."
_REMEDIES = {  # without an entry: the remedy of StorageError
    errno.EACCES: "Choose a place that you may write to.",
    errno.EPERM: "Choose a place that you may write to.",
    errno.EROFS: "Choose a place that you may write to.",
    errno.ENOENT: "Make the folder first, or choose another path.",
    errno.ENOTDIR: _CHOOSE,
    errno.EISDIR: _CHOOSE,
    errno.EEXIST: _CHOOSE,
}


@contextmanager
def disk_errors(target: Path) -> Iterator[None]:
    """Turn an ``OSError`` from writing ``target`` into a ``StorageError`` that names path and cause."""
    try:
        yield
    except OSError as error:
        raise storage_error(target, error) from error


def storage_error(target: Path | str, error: OSError) -> StorageError:
    """The ``StorageError`` for an ``OSError`` from writing ``target``: the cause in words, and what helps."""
    cause = _DISK_ERRORS.get(error.errno or 0, error.strerror or type(error).__name__)
    return StorageError(f"cannot write {target}: {cause}", remedy=_REMEDIES.get(error.errno or 0))


def fsync_path(path: Path) -> None:
    """Force a file or folder to the disk. Folders are skipped on systems that cannot open one."""
    if path.is_dir() and os.name == "nt":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def atomic_files(*targets: Path) -> Iterator[list[Path]]:
    """Yield one temporary path for each of ``targets``; when the block ends well, they replace the targets.

    If anything fails, the temporary files are removed and every target keeps its old content, or stays absent.
    The targets must lie in existing folders.

    Raises:
        StorageError: the disk is full or not writable, or a target is a folder or a device.
    """
    for target in targets:
        _refuse_special(target)
    partial = [target.with_name(f".{target.name}.{os.getpid()}.partial") for target in targets]
    with disk_errors(targets[0]):
        try:
            yield partial
            for path in partial:
                fsync_path(path)
            _replace_all(partial, targets)
        finally:
            for path in partial:
                path.unlink(missing_ok=True)
        for folder in {target.parent for target in targets}:
            fsync_path(folder)


def write_whole(path: Path, data: bytes) -> None:
    """Put ``data`` in the place of a file, all of it or nothing. Raises ``StorageError``."""
    with atomic_files(path) as (partial,):
        partial.write_bytes(data)


def write_private(path: Path, data: bytes) -> None:
    """Make a file that nobody else can read at any moment, not even while it is empty; an existing one is kept.

    Raises:
        StorageError: it exists, or the disk is full or not writable.
    """
    with disk_errors(path):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _PRIVATE_MODE)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        fsync_path(path.parent)


def _refuse_special(target: Path) -> None:
    """Renaming would put a file in the place of a device: as root, ``/dev/null`` would be gone."""
    if target.exists() and not target.is_file():
        kind = "a folder" if target.is_dir() else "a device, not a file"
        raise StorageError(f"cannot write {target}: it is {kind}", remedy=_CHOOSE)


def _replace_all(partial: list[Path], targets: tuple[Path, ...]) -> None:
    created: list[Path] = []
    try:
        for source, target in zip(partial, targets, strict=True):
            fresh = not target.exists()
            os.replace(source, target)
            if fresh:
                created.append(target)
    except OSError:
        for target in created:
            target.unlink(missing_ok=True)
        raise


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside ``target`` that takes its place, whole, when the block ends well.

    An existing ``target`` is replaced; whoever calls has made sure that it may be. If anything fails the new folder
    is removed and the old one stays. A folder left by a killed process is cleared by the next call.

    Raises:
        StorageError: the disk is full or not writable.
    """
    fresh, previous = (target.with_name(f".{target.name}.{kind}") for kind in ("partial", "previous"))
    with disk_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(fresh, ignore_errors=True)
        try:
            fresh.mkdir()
            yield fresh
            for path in sorted(fresh.rglob("*"), reverse=True):
                fsync_path(path)
            fsync_path(fresh)
            _swap(fresh, target, previous)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        fsync_path(target.parent)


def _swap(fresh: Path, target: Path, previous: Path) -> None:
    # A folder cannot replace a non-empty folder in one step, so the old one is set aside for an instant;
    # if the process dies right there, it is found again under the name ending in ".previous".
    if target.exists():
        shutil.rmtree(previous, ignore_errors=True)
        os.rename(target, previous)
        try:
            os.rename(fresh, target)
        except OSError:
            os.rename(previous, target)
            raise
    else:
        os.rename(fresh, target)
    shutil.rmtree(previous, ignore_errors=True)
