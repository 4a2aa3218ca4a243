"""The wire format: round trips, and refusal of every malformed payload by a WireError and nothing else."""

import flwr.app
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import wire
from common.errors import WireError
from common.table import RowDomain
from common.update import ParameterSpec, UpdateBatch, coalesce

SPECS = (ParameterSpec("table", (6, 2), "words"), ParameterSpec("bias", (3,)))


def update(count=3, seed=0):
    rng = np.random.default_rng(seed)
    owners, ids = rng.integers(0, count, 8), rng.integers(0, 6, 8)
    rows = coalesce(owners, ids, rng.standard_normal((8, 2)).astype(np.float32), count=count, rows=6)
    return UpdateBatch(count, {"table": rows}, {"bias": rng.standard_normal((count, 3)).astype(np.float32)})


def payload_of(batch):
    return wire.Payload({"protocol": wire.PROTOCOL}, wire.encode_updates(batch))


def test_update_survives_flowers_records():
    batch = update()
    back = wire.decode_updates(wire.unpack(wire.pack(payload_of(batch), flwr.app)), SPECS, 3)
    np.testing.assert_array_equal(back.rows["table"].ids, batch.rows["table"].ids)
    np.testing.assert_array_equal(back.rows["table"].values, batch.rows["table"].values)
    np.testing.assert_array_equal(back.dense["bias"], batch.dense["bias"])


@pytest.mark.parametrize("frequencies", [None, np.array([3.0, 1.0, 2.0])])
def test_row_domain_round_trip(frequencies):
    domain = RowDomain(("a", "b\nc", "日本"), frequencies, "hashed")
    back = wire.decode_domain(wire.encode_domain(domain))
    assert back.keys == domain.keys
    assert back.digest == domain.digest
    assert back.source == "hashed"


def test_row_domain_with_another_digest_is_refused():
    encoded = wire.encode_domain(RowDomain(("a", "b")))
    forged = wire.Payload({**encoded.config, "domain_digest": "0" * 64}, encoded.arrays)
    with pytest.raises(WireError, match="digest"):
        wire.decode_domain(forged)


def broken(name, change):
    def apply(payload):
        arrays = {k: v.copy() for k, v in payload.arrays.items()}
        arrays[name] = change(arrays[name])
        return wire.Payload(payload.config, arrays)

    return apply


def reversed_rows(ids):
    return ids[::-1].copy()


MALFORMED = {
    "row number below the table": broken("ids/table", lambda a: np.where(a == a[0], -1, a)),
    "row number above the table": broken("ids/table", lambda a: np.where(a == a[-1], 6, a)),
    "unsorted rows": broken("ids/table", reversed_rows),
    "repeated rows": broken("ids/table", lambda a: np.full_like(a, 2)),
    "wrong dtype": broken("values/table", lambda a: a.astype(np.float64)),
    "wrong width": broken("values/table", lambda a: np.ones((len(a), 3), np.float32)),
    "too few values": broken("values/table", lambda a: a[:-1]),
    "offsets that decrease": broken("offsets/table", lambda a: np.array([0, 5, 3, a[-1]])),
    "offsets of other clients": broken("offsets/table", lambda a: a[:-1]),
    "offsets that skip entries": broken("offsets/table", lambda a: np.array([1, *a[1:]])),
    "dense of another shape": broken("dense/bias", lambda a: a[:, :2]),
    "dense for fewer clients": broken("dense/bias", lambda a: a[:-1]),
}


@pytest.mark.parametrize("change", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_updates_are_refused(change):
    with pytest.raises(WireError):
        wire.decode_updates(change(payload_of(update())), SPECS, 3)


def test_arrays_of_unknown_parameters_are_refused():
    payload = payload_of(update())
    with pytest.raises(WireError, match="belong to no parameter"):
        wire.decode_updates(wire.Payload({}, {**payload.arrays, "dense/other": np.zeros(3, np.float32)}), SPECS, 3)


def test_rows_are_applied_to_the_version_held():
    held = {"table": np.zeros((6, 2), np.float32), "bias": np.zeros(3, np.float32)}
    new = {"table": np.ones((6, 2), np.float32), "bias": np.ones(3, np.float32)}
    arrays = wire.encode_parameters(new, {"table": np.array([1, 4])})
    got = wire.decode_parameters(wire.Payload({}, arrays), SPECS, held)
    assert got["table"].sum(axis=1).tolist() == [0, 2, 0, 0, 2, 0]
    assert got["bias"].tolist() == [1, 1, 1]
    with pytest.raises(WireError, match="no earlier version"):
        wire.decode_parameters(wire.Payload({}, arrays), SPECS, None)


@given(st.binary(max_size=200))
@settings(max_examples=50, deadline=None)
def test_damaged_stored_arrays_are_refused(data):
    with pytest.raises(WireError):
        wire.arrays_from_bytes(data)


@pytest.mark.parametrize("record", [None, {}, {"arrays": {}, "config": {}}, {"arrays": 3, "config": {}}])
def test_foreign_messages_are_refused(record):
    with pytest.raises(WireError):
        wire.unpack(record)
