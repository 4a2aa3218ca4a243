"""``fedembed plan``: bytes as they travel, the selection's numbers, and an estimate of time that says what it is."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from client.integers import client_integers
from client.training import Randomness, client_updates, local_training
from common import wire
from common.config import Scenario, build_scenario
from common.errors import ConfigError
from common.privacy.rng import NoiseSource
from common.secagg.packing import packed
from common.table import RowDomain
from common.units import Record, Units
from common.work import Work, work_for
from simulations import cli, cost, timing
from simulations.cohort import with_cohort
from simulations.commands import plan_table
from simulations.cost import bytes_per_round, describe, rows_sent, selection
from simulations.federation import enrolled_work
from simulations.timing import FEW_UNITS, LEFT_OUT, Size, estimated_seconds

KEYS = tuple(f"word{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(300))
HASHED = {"source": "hashed", "buckets": len(KEYS)}
BASE = {
    "task": {"family": "word2vec", "dimension": 4},
    "data": {"reader": "text", "path": "absent", "unit": "record"},
    "vocabulary": HASHED,
    "privacy": {"mode": "example", "noise_multiplier": 2.0, "l2_clip_norm": 0.5, "test_mode": True},
    "training": {"local_steps": 3, "unit_rate": 0.2, "batch_size": 8},
}
SELECTED = {"federation": {"rows": "selected"}}


def scenario(*changes: dict[str, dict[str, object]]):
    raw = {name: dict(section) for name, section in BASE.items()}
    for change in changes:
        for name, section in change.items():
            raw[name] = {**raw.get(name, {}), **section}
    return build_scenario(raw)


LOCAL = scenario({"data": {"unit": "client"}, "privacy": {"mode": "local"}, "training": {"unit_rate": 0.0}})
CENTRAL = scenario({"data": {"unit": "client"}, "privacy": {"mode": "central"}, "training": {"unit_rate": 0.0}})
PASSES = scenario(
    {"data": {"unit": "client"}, "privacy": {"mode": "central"}, "training": {"unit_rate": 0.0, "local_steps": 0}}
)
SPECTRAL = build_scenario(
    {
        "task": {"family": "spectral", "dimension": 4},
        "data": {"path": "absent", "unit": "record"},
        "vocabulary": HASHED,
        "privacy": {"noise_multiplier": 2.0, "test_mode": True},
    }
)


def work_of(which: Scenario) -> Work:
    """Its work on the rows ``KEYS``."""
    return work_for(which, RowDomain(KEYS, np.arange(len(KEYS), 0, -1.0)))


def sent(work: Work, units: Units, seed: int) -> int:
    """Bytes of one client's answer, as the wire has it."""
    parameters = {s.name: np.zeros(s.shape, np.float32) for s in work.specs}
    own = [Randomness(0, NoiseSource.seeded_for_tests(seed))]
    update = client_updates(work, parameters, [units], training=local_training(work, 1), randomness=own)
    return sum(array.nbytes for array in wire.encode_updates(update).values())


def client(work: Work, text: str) -> Units:
    return work.family.encode([Record("c", str(k), text) for k in range(6)], work.domain, work.options)


@pytest.mark.parametrize("which", [scenario(), LOCAL, CENTRAL, SPECTRAL], ids=["example", "local", "central", "sums"])
def test_bytes_are_those_that_travel(which) -> None:
    work = work_of(which)
    told = bytes_per_round(work)
    for text in ("", "zyxzyx", "wordaa wordab wordaa zyxzyx wordac"):
        assert told["client_without_data_sends"] <= sent(work, client(work, text), 1) <= told["client_sends_at_most"]
    for nothing in (client(work, "zyxzyx"), client(work, "").take(np.empty(0, np.int64))):
        assert 0 <= sent(work, nothing, 1) - told["client_without_data_sends"] <= 2 * 16  # where no rows begin and end
    everything = " ".join(work.domain.keys)
    assert rows_sent(work.plan) == ("touched" if work.plan.mode == "central" else "all")
    if rows_sent(work.plan) == "all" or which is SPECTRAL:
        assert sent(work, client(work, everything), 1) == told["client_sends_at_most"]
    whole = wire.encode_parameters({s.name: np.zeros(s.shape, np.float32) for s in work.specs}, None)
    assert told["client_receives_at_most"] == sum(array.nbytes for array in whole.values())


def test_bytes_of_selected_rows_are_the_mean_of_what_chance_selects() -> None:
    work = work_of(scenario(SELECTED, {"privacy": {"selection_threshold": 1.0}}))
    told, nothing = bytes_per_round(work), client(work, "").take(np.empty(0, np.int64))
    found = [sent(work, nothing, seed) for seed in range(12)]
    row, rows = 8 + 4 * 4, 2 * 300
    chance = 1 - stats.norm.cdf(1.0) ** 3
    tolerance = 5 * row * (rows * chance * (1 - chance) / len(found)) ** 0.5 + row
    assert abs(np.mean(found) - told["client_without_data_sends"]) < tolerance
    assert max(found) < told["client_sends_at_most"]
    assert told["client_without_data_sends"] < bytes_per_round(work_of(scenario()))["client_without_data_sends"]


def test_bytes_and_times_of_a_secure_sum_are_told_beside_the_protocol_s() -> None:
    which = SPECTRAL.model_copy(
        update={
            "privacy": SPECTRAL.privacy.model_copy(update={"mode": "distributed"}),
            "federation": SPECTRAL.federation.model_copy(update={"secure_aggregation": "full"}),
        }
    )
    told = describe(which)
    work = enrolled_work(with_cohort(which, cost.ASSUMED_CLIENTS))
    own = [Randomness(0, NoiseSource.seeded_for_tests(0))]
    parameters = {s.name: np.zeros(s.shape, np.float32) for s in work.specs}
    settings = {"training": local_training(work, 1), "randomness": own, "round_number": 1}
    (masked,) = client_integers(work, parameters, [client(work, "wordaa wordab")], **settings)
    assert told["bytes_per_round"]["client_sends_beside_keys_and_shares"] == len(packed(masked, work.plan.secure.bits))
    assert (told["clients_assumed"], told["rows_sent"]) == (100, "all, masked")
    assert told["seconds"]["client_a_round"] >= 0 and told["seconds"]["left_out"].startswith("keys, masks and shares")


def test_the_two_noises_of_a_selection_are_one() -> None:
    told = selection(work_of(scenario(SELECTED, {"privacy": {"selection_ratio": 3.0}})))
    assert (told["ratio"], told["threshold"], told["vote_multiplier"]) == (3.0, 4.0, 6.0)
    assert told["value_multiplier"] ** -2 + told["vote_multiplier"] ** -2 == pytest.approx(2.0**-2)
    assert told["untouched_rows_kept_a_step"] == pytest.approx(2 * 300 * stats.norm.sf(4.0))


def test_every_threshold_that_a_scenario_allows_has_its_bytes() -> None:
    for threshold in (-8.0, 38.0):
        work = work_of(scenario(SELECTED, {"privacy": {"selection_threshold": threshold}}))
        most = bytes_per_round(work)["client_sends_at_most"]
        assert bytes_per_round(work)["client_without_data_sends"] == (most if threshold < 0 else 2 * 16)


LAW = {"start": 0.01, "row": 1e-6, "step": 2e-3, "unit": 3e-5}  # seconds
OWN = {"start": 0.02, "row": 5e-6}


@pytest.mark.parametrize("steps", [3, 4, 5, 400])
@pytest.mark.parametrize("rows", [300, 8192, 30_000])
def test_larger_sizes_are_extrapolated_by_their_slopes(rows: int, steps: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where time is linear in the public sizes, the estimate from small trials is exact."""

    def client_round(work: Work, size: Size) -> float:
        assert size.rows <= timing.MOST_ROWS and size.steps <= timing.MOST_STEPS
        return LAW["start"] + LAW["row"] * size.rows + size.steps * (LAW["step"] + LAW["unit"] * size.units)

    monkeypatch.setattr(timing, "_client_round", client_round)
    monkeypatch.setattr(timing, "_coordinator_round", lambda work, size: OWN["start"] + OWN["row"] * size.rows)
    monkeypatch.setattr(timing, "_fastest", lambda seconds: seconds)
    hashed = {"vocabulary": {"source": "hashed", "buckets": rows}, "training": {"local_steps": steps}}
    told = estimated_seconds(enrolled_work(scenario(hashed)))
    assert told["coordinator_a_round"] == pytest.approx(OWN["start"] + OWN["row"] * rows)
    assert told["client_a_round"] == pytest.approx(LAW["start"] + LAW["row"] * rows + steps * LAW["step"])
    assert told["client_a_round_per_1000_units"] == pytest.approx(1000 * 0.2 * steps * LAW["unit"])


@pytest.mark.parametrize(
    ("which", "data"),
    [
        (scenario(), "per_1000_units"),
        (scenario(SELECTED), "per_1000_units"),
        (SPECTRAL, "per_1000_units"),
        (LOCAL, "for_full_batches_at_most"),
        (PASSES, "per_1000_units"),
    ],
    ids=["example", "selected", "sums", "local steps", "passes"],
)
def test_a_trial_gives_every_time_that_is_told(which, data: str) -> None:
    told = estimated_seconds(work_of(which))
    assert set(told) == {"coordinator_a_round", "client_a_round", f"client_a_round_{data}", "how", "left_out"}
    assert 0 < told["coordinator_a_round"] < 60 and 0 <= told["client_a_round"] < 60
    assert "estimate" in told["how"] and "ten words a unit" in told["how"] and told["left_out"] == LEFT_OUT


def test_where_a_trial_fails_the_plan_says_so_and_nothing_else_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_device(work: Work, round_number: int) -> None:
        raise ConfigError("no usable GPU")

    monkeypatch.setattr(timing, "local_training", no_device)
    told = describe(scenario())
    assert told["seconds"] == {"not_measured": "no usable GPU"} and told["noise_multiplier"] == 2.0


def test_no_reader_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from client import readers

    def read(data: object) -> None:
        raise AssertionError("data were read")

    monkeypatch.setattr(readers, "read", read)
    assert set(describe(SPECTRAL)) >= {"epsilon", "bytes_per_round", "seconds"}


def test_the_made_up_client_has_the_units_of_the_plan() -> None:
    for which, count in ((scenario(), FEW_UNITS), (LOCAL, 1)):
        assert timing._made_up_client(work_of(which), FEW_UNITS).count == count


def test_the_page_and_the_json_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "s.toml"
    file.write_text(
        '[task]\nfamily = "word2vec"\ndimension = 4\n[data]\nunit = "record"\npath = "absent"\n'
        '[vocabulary]\nsource = "hashed"\nbuckets = 300\n'
        '[federation]\nrows = "selected"\n[training]\nlocal_steps = 2\nunit_rate = 0.1\n'
        '[privacy]\nmode = "example"\nnoise_multiplier = 2.0\nl2_clip_norm = 1.0\n'
    )
    assert cli.main(["plan", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["rows_sent"] == "selected" and told["selection"]["vote_multiplier"] == 10.0
    page = "\n".join(plan_table.lines(told))
    for line in ("rows sent", "vote multiplier", "value multiplier", "client sends at most", "left out", "how"):
        assert line in page
    assert "kB" in page and LEFT_OUT in page


def test_without_selection_nothing_is_said_of_it() -> None:
    assert "selection" not in describe(SPECTRAL) and cost.rows_sent(work_of(SPECTRAL).plan) == "touched"
