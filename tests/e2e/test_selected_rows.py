"""``federation.rows = "selected"`` from text files to a verified release, through every engine."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from client.ledger import Ledger
from common import families
from common.config import Scenario, build_scenario
from common.release import load_release
from common.table import RowDomain
from common.vocabulary import row_domain
from server.checkpoint import CheckpointDirectory
from server.progress import LogReporter
from simulations import cli, corpora, engine
from simulations.federation import run_simulation
from tests.e2e.deployment import deployment, run_config_for, run_to_end, site_files

SITES = ("north", "south", "west")
ROUNDS = 2


@dataclass(frozen=True)
class Data:
    """Texts of three sites, and a public vocabulary of which they use less than half."""

    texts: Path
    words: Path

    def site(self, name: str) -> Path:
        return self.texts / f"{name}.txt"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Data:
    folder = tmp_path_factory.mktemp("data")
    found = Data(folder / "texts", folder / "words.tsv")
    texts = [record.value for record in corpora.load("planted")]
    found.texts.mkdir()
    for k, name in enumerate(SITES):
        found.site(name).write_text("\n".join(texts[k::40]) + "\n")
    words = {**corpora.vocabulary("planted"), **{f"unheard{chr(97 + k // 26)}{chr(97 + k % 26)}": 2 for k in range(90)}}
    found.words.write_text("".join(f"{w}\t{n}\n" for w, n in words.items()))
    return found


def scenario(data: Data, **privacy: object) -> Scenario:
    """DP-SGD inside three clients; a low threshold, so that some of a hundred rows are selected and some are not."""
    noise = {"noise_multiplier": 0.5, "l2_clip_norm": 1.0, "delta": 1e-4, "test_mode": True}
    return build_scenario(
        {
            "task": {"family": "word2vec", "dimension": 8, "shared_negatives": 16},
            "data": {"reader": "text", "path": str(data.texts), "unit": "record"},
            "vocabulary": {"path": str(data.words)},
            "privacy": {"mode": "example", "selection_threshold": 2.0, **noise, **privacy},
            "federation": {"rounds": ROUNDS, "rows": "selected"},
            "training": {"local_steps": 3, "batch_size": 8, "unit_rate": 0.2, "lr": 0.2},
        }
    )


def federation(which: Scenario, **changes: object) -> Scenario:
    return which.model_copy(update={"federation": which.federation.model_copy(update=changes)})


def table(out: Path) -> np.ndarray:
    return load_release(out / "release").tables["words"].vectors


def run(which: Scenario, out: Path, *, on: str = "local") -> np.ndarray:
    run_simulation(which, out=out, engine=on, reporter=LogReporter())
    return table(out)


@pytest.fixture(scope="module")
def in_process(data: Data, tmp_path_factory: pytest.TempPathFactory) -> np.ndarray:
    """The table of the in-process engine, its messages passed through Flower's serialisation."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(engine, "InProcessGrid", functools.partial(engine.InProcessGrid, byte_exact=True))
        return run(scenario(data), tmp_path_factory.mktemp("in-process"))


def test_messages_that_are_copied_byte_by_byte_give_the_same_table(
    data: Data, in_process: np.ndarray, tmp_path: Path
) -> None:
    assert np.array_equal(run(scenario(data), tmp_path), in_process)


def test_rows_that_nobody_selected_are_as_they_were_before(data: Data, in_process: np.ndarray) -> None:
    """Among them words that clients did use: the public start alone tells nothing of anybody's texts."""
    which = scenario(data)
    domain = row_domain(which.vocabulary)
    moved = np.any(in_process != _start(which, domain), axis=1)
    used = {word for site in SITES for word in data.site(site).read_text().split()}
    heard = np.array([key in used for key in domain.keys])
    assert 0 < moved[heard].sum() < heard.sum()
    assert 0 < moved[~heard].sum() < (~heard).sum()  # by chance: which rows move does not tell which are used
    assert moved[heard].mean() > moved[~heard].mean()


def _start(which: Scenario, domain: RowDomain) -> np.ndarray:
    family = families.load("word2vec")
    options = families.options_of(family, which.task)
    begun = family.initial(options, family.specs(options, len(domain)), domain, which.seed)
    return family.export(begun, domain, options)["words"].vectors


class Died(BaseException):
    """The process ends here."""


def test_a_run_that_dies_between_rounds_resumes_to_the_same_table(
    data: Data, in_process: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = CheckpointDirectory.save

    def save(self: CheckpointDirectory, state: object) -> None:
        real(self, state)
        raise Died

    with monkeypatch.context() as patched:
        patched.setattr(CheckpointDirectory, "save", save)
        with pytest.raises(Died):
            run(scenario(data), tmp_path)
    assert not (tmp_path / "release").exists()
    result = run_simulation(scenario(data), out=tmp_path, engine="local", reporter=LogReporter())
    assert result.resumed_from_round == 1
    assert np.array_equal(table(tmp_path), in_process)
    check_ledger(tmp_path / "ledger.sqlite", clients=len(SITES), rounds=ROUNDS)


def check_ledger(path: Path, *, clients: int, rounds: int) -> None:
    with Ledger.open(path, create=False) as ledger:
        ledger.verify()
        charges = [count for _, count in ledger.accounts()]
    assert len(charges) == clients and all(count >= rounds for count in charges)


def test_the_claim_is_verified_and_is_that_of_both_noises_together(
    data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With secret noise, so that the claim holds; the same with dense rows costs the same epsilon."""
    which = scenario(data, test_mode=False)
    run(which, tmp_path)
    assert cli.main(["verify", str(tmp_path / "release")]) == 0
    assert "FAILED" not in capsys.readouterr().out
    certificate = load_release(tmp_path / "release").certificate
    assert not certificate["void"] and certificate["mechanism"]["rows"] == "selected"
    run(federation(which, rows="dense"), tmp_path / "dense")
    same = load_release(tmp_path / "dense" / "release").certificate
    assert certificate["observers"]["coordinator"]["epsilon"] == same["observers"]["coordinator"]["epsilon"]


@pytest.mark.slow
def test_ray_gives_the_same_table(data: Data, tmp_path: Path) -> None:
    once = federation(scenario(data), rounds=1)
    expected = run(once, tmp_path / "in-process")
    np.testing.assert_allclose(run(once, tmp_path / "ray", on="ray"), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_deployment_gives_the_same_table(data: Data, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One round: every message is a process of its own there, which loads the program anew."""
    sites = [site_files(tmp_path, name, data.site(name)) for name in SITES]
    once = federation(scenario(data), rounds=1)
    which, out = federation(once, min_nodes=len(SITES)), tmp_path / "coordinator"
    with deployment(tmp_path / "flower", sites, run_config_for(which, out)) as (app, environment):
        run_to_end(app, environment)
    np.testing.assert_allclose(table(out), run(once, tmp_path / "in-process"), rtol=1e-4, atol=1e-6)
    assert cli.main(["verify", str(out / "release")]) == 0
    assert "FAILED" not in capsys.readouterr().out
    for site in sites:
        check_ledger(site / "state" / "ledger.sqlite", clients=1, rounds=1)
