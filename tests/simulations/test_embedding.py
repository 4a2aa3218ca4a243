"""An encoder's release: vectors of the images that the caller brings, in every command that wants a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.readers._pictures import save_picture
from common.config import build_scenario
from common.errors import EvaluationError, UsageError
from common.families.image import embed
from common.release import load_release
from server.progress import LogReporter
from simulations import cli
from simulations.audit.adversary import Adversary
from simulations.audit.release import audit_release
from simulations.commands.embedding import embedded
from simulations.federation import run_simulation

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 10), dtype=np.uint8)


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image")
    np.savez(folder / "images.npz", images=PIXELS, writer=np.arange(12) % 3, label=np.arange(12) % 2)
    scenario = build_scenario(
        {
            "task": {"family": "image", "size": 8, "dimension": 4, "channels": 8, "blocks": 1, "classes": 2},
            "data": {"reader": "images", "path": str(folder / "images.npz"), "client_key": ["writer"], "unit": "image"},
            "privacy": {"mode": "none"},
            "federation": {"rounds": 1},
        }
    )
    run_simulation(scenario, out=folder / "run", engine="local", reporter=LogReporter())
    return folder / "run" / "release"


def test_vectors_are_the_encoders(release: Path) -> None:
    found = load_release(release)
    table = embedded(found, release.parents[1] / "images.npz")
    options = found.model_config["options"]
    assert table.keys[:2] == ("images/0", "images/1") and table.vectors.shape == (12, 4)
    from common.families.image import ImageOptions

    expected = embed(found.model, list(PIXELS), ImageOptions(**options))
    np.testing.assert_array_equal(table.vectors, expected)


def test_pictures_are_named_by_their_paths(release: Path, tmp_path: Path) -> None:
    for name in ("ann/cat/1", "bo/2"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save_picture(PIXELS[0], tmp_path / f"{name}.png")
    assert embedded(load_release(release), tmp_path).keys == ("ann/cat/1", "bo/2")


def test_commands_take_images_for_an_encoder(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = str(release.parents[1] / "images.npz")
    labels = tmp_path / "labels.tsv"
    labels.write_text("".join(f"images/{k}\t{k % 2}\n" for k in range(12)))
    assert cli.main(["export", str(release), "--data", data, "--format", "numpy", "--out", str(tmp_path / "v")]) == 0
    assert cli.main(["evaluate", str(release), "--data", data, "--task", f"knn:{labels}"]) == 0
    assert cli.main(["neighbors", str(release), "images/3", "--data", data]) == 0
    capsys.readouterr()
    assert cli.main(["neighbors", str(release), "images/3"]) != 0
    assert "--data" in capsys.readouterr().err


def test_tables_need_no_images(tmp_path: Path, release: Path) -> None:
    class Tables:
        model_config: dict[str, object] = {}

    with pytest.raises(UsageError, match="no encoder"):
        embedded(Tables(), tmp_path)  # type: ignore[arg-type]


def test_an_audit_of_an_encoder_says_what_it_cannot_attack(release: Path, tmp_path: Path) -> None:
    record = audit_release(release, adversary=Adversary())
    assert record.outcome == "INCONCLUSIVE" and not record.leaks
    assert {"membership", "inversion", "row_support"} <= {refused.attack for refused in record.not_run}
    labels = tmp_path / "labels.tsv"
    labels.write_text("images/0\tred\n")
    with pytest.raises(EvaluationError, match="no rows to label"):
        audit_release(release, adversary=Adversary(labels=labels))
