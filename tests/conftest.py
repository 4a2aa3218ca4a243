"""What every test shares: one thread, no reports to anybody, and the development data sets if they are here."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")  # before numpy and torch are imported; the same sums on every machine
os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
os.environ.setdefault("MPLBACKEND", "Agg")

ROOT = Path(__file__).resolve().parent.parent


def _data_folder() -> Path | None:
    given = os.environ.get("FEDEMBED_DATA")
    folder = Path(given) if given else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of development data sets; the test is skipped where there is none."""
    folder = _data_folder()
    if folder is None:
        pytest.skip("development data sets not found: set FEDEMBED_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def data_file(data_dir: Path):  # type: ignore[no-untyped-def]
    """Function: relative path -> existing data file; the test is skipped where it is absent."""

    def find(relative: str) -> Path:
        path = data_dir / relative
        if not path.exists():
            pytest.skip(f"development data set {relative} is not in {data_dir}")
        return path

    return find


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """One thread also where torch was imported before this file was read."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


STARTS_RAY = ("test_three_engines.py", "test_secure_engines.py", "test_selected_rows.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file in one process, and all that start Ray in the same one: two of it would meet."""
    for item in items:
        group = "ray" if item.path.name in STARTS_RAY else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))
