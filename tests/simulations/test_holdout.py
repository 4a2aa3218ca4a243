"""What is held out is gone from training, and nothing else is."""

import numpy as np
import pytest

from common.errors import DataError
from common.table import HASHED, HashedRows, RowDomain
from common.units import Interaction, Record
from simulations.holdout import hold_out_clients, hold_out_last


def interactions(*items_by_user):
    return {
        f"u{u}": [Record(f"u{u}", f"u{u}", Interaction(f"u{u}", item, 1.0, time)) for time, item in enumerate(items)]
        for u, items in enumerate(items_by_user)
    }


DOMAIN = RowDomain(("a", "b", "c", "d"))


def test_the_last_item_is_held_out_and_absent_from_training(tmp_path):
    kept = hold_out_last(interactions("abc", "ba", "d"), DOMAIN, tmp_path / "h.npz")
    assert [[r.value.item for r in records] for records in kept.values()] == [["a", "b"], ["b"], ["d"]]
    with np.load(tmp_path / "h.npz") as split:
        assert split["held_out"].tolist() == [2, 0]
        assert np.split(split["items"], split["offsets"][1:-1])[0].tolist() == [0, 1]


def test_an_item_seen_twice_does_not_stay_in_training(tmp_path):
    kept = hold_out_last(interactions("abab", "cd"), DOMAIN, tmp_path / "h.npz")
    assert [r.value.item for r in kept["u0"]] == ["a", "a"]


def test_users_without_two_known_items_keep_everything(tmp_path):
    kept = hold_out_last(interactions("ax", "ab"), DOMAIN, tmp_path / "h.npz")
    assert [r.value.item for r in kept["u0"]] == ["a", "x"]


def test_one_item_again_and_again_is_not_held_out(tmp_path):
    """Nothing of such a user would be left to train on, and a rank of it would be that of nobody."""
    kept = hold_out_last(interactions("aaa", "axa", "ab"), DOMAIN, tmp_path / "h.npz")
    assert [[r.value.item for r in records] for records in kept.values()] == [["a"] * 3, ["a", "x", "a"], ["a"]]
    with np.load(tmp_path / "h.npz") as split:
        assert split["held_out"].tolist() == [1] and np.diff(split["offsets"]).min() == 1


def test_what_shares_the_held_out_row_goes_too(tmp_path):
    """In a hashed domain two items may be one row: training on the other would know the answer."""
    one_row = HashedRows(("0", "1"))
    names = [f"item{k}" for k in range(20)]
    held, other = next((a, b) for a in names for b in names if a != b and one_row[a] == one_row[b])
    third = next(name for name in names if one_row[name] != one_row[held])
    domain = RowDomain(("0", "1"), source=HASHED)
    kept = hold_out_last(interactions([other, third, held]), domain, tmp_path / "h.npz")
    assert [r.value.item for r in kept["u0"]] == [third]


@pytest.mark.parametrize("users", [("a", "b"), ("aa", "bb"), ("", "x"), ("xy",)])
def test_nothing_to_hold_out_is_an_error(users, tmp_path):
    with pytest.raises(DataError, match="two items") as refused:
        hold_out_last(interactions(*users), DOMAIN, tmp_path / "h.npz")
    assert "data.holdout = 'none'" in refused.value.hint
    assert not list(tmp_path.iterdir())


def texts(clients):
    return {f"c{k}": [Record(f"c{k}", "0", f"words of\nclient {k}")] for k in range(clients)}


def test_held_out_clients_do_not_train(tmp_path):
    kept = hold_out_clients(texts(180), 3, tmp_path / "t.txt")
    lines = (tmp_path / "t.txt").read_text().splitlines()
    assert len(kept) + len(lines) == 180
    assert 15 <= len(lines) <= 45  # one in six: 30, standard deviation 5
    assert not {f"words of client {name[1:]}" for name in kept} & set(lines)
    assert hold_out_clients(texts(180), 3, tmp_path / "t.txt").keys() == kept.keys()
    assert hold_out_clients(texts(180), 4, tmp_path / "t.txt").keys() != kept.keys()


def test_one_client_less_moves_no_other_client(tmp_path):
    """Else a single client would change whom the model is trained on, and no clip would bound that."""
    all_clients = texts(60)
    kept = hold_out_clients(all_clients, 3, tmp_path / "t.txt").keys()
    for gone in list(all_clients)[::7]:
        fewer = {name: records for name, records in all_clients.items() if name != gone}
        assert hold_out_clients(fewer, 3, tmp_path / "t.txt").keys() == kept - {gone}


def test_too_few_clients_or_no_texts_are_refused(tmp_path):
    with pytest.raises(DataError, match="too few"):
        hold_out_clients(texts(5), 3, tmp_path / "t.txt")
    with pytest.raises(DataError, match="needs texts"):
        hold_out_clients(interactions(*["ab"] * 18), 3, tmp_path / "t.txt")
