"""From a Flower node's configuration to its session: a simulated shard of clients, or a site with its own data."""

from __future__ import annotations

import datetime
import hashlib
import json
import os
import time
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from client import readers
from client.device import Device
from client.fingerprint import data_fingerprint, named_fingerprint
from client.ledger import Ledger
from client.policy import Policy, read_policy
from client.secure import erase_forgotten
from client.secure_terms import Party, party_from
from client.session import Session
from client.store import by_client, encode_clients, load_store, save_store, shard
from common import families
from common.config import DataConfig, Scenario
from common.errors import ConfigError, DataError
from common.table import RowDomain
from common.units import ClientStore, Record

HALF_WRITTEN_S = 3_600.0
KEPT_ENCODED = 4  # runs over other rows or units that a site can serve in turns without reading its data again
ACTIVITY_FILE = "activity.jsonl"
BUNDLE_VARIABLE = "FEDEMBED_BUNDLE"  # set by the process that serves a site, once it has checked its code


@dataclass(frozen=True)
class StoreSource:
    """A shard of the clients that a simulation has already encoded."""

    directory: Path
    index: int
    count: int

    def store(self, scenario: Scenario, domain: RowDomain | None) -> ClientStore:
        """Every ``count``-th client, from ``index``."""
        return shard(load_store(store_path(self.directory, scenario)), self.index, self.count)

    def fingerprints(self, store: ClientStore) -> tuple[str, ...]:
        """By content and name: a simulation has a ledger of its own."""
        return store_fingerprints(store)


@dataclass(frozen=True)
class SiteSource:
    """A site's own data: it decides path and reader; the scenario decides family and privacy unit."""

    name: str
    data: DataConfig
    state_dir: Path

    def store(self, scenario: Scenario, domain: RowDomain | None) -> ClientStore:
        """Read and encode once; later processes of the same site reopen the encoded file."""
        data = self.data.model_copy(update={"unit": scenario.data.unit, "client_key": (), "holdout": "none"})
        family = families.load(scenario.task.family)
        path = self.state_dir / f"encoded-{self._cache_key(scenario, data, domain)}.npz"
        if (known := _reopened(path)) is not None:
            return known
        options = families.options_of(family, scenario.task)
        readers.refuse_unfit(data, needs_labels=options.needs_labels)
        records = [Record(self.name, r.unit, r.value) for r in readers.read(data)]
        if scenario.data.unit == "client":
            records = [Record(self.name, self.name, r.value) for r in records]
        store = encode_clients(by_client(records).items(), family, options, domain=domain)
        _remove_old(self.state_dir)
        save_store(store, path)
        return store

    def fingerprints(self, store: ClientStore) -> tuple[str, ...]:
        """By the site's own name for its data: one account, whatever a coordinator asks and however the data grow."""
        return (named_fingerprint(self.name),) * len(store)

    def _cache_key(self, scenario: Scenario, data: DataConfig, domain: RowDomain | None) -> str:
        files = sorted(p for p in _files(Path(data.path)))
        stamp = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
        task = scenario.task.model_dump(mode="json")
        rows = domain.digest if domain else ""
        text = json.dumps([stamp, task, data.model_dump(mode="json"), rows], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def _reopened(path: Path) -> ClientStore | None:
    """An encoded file, which counts as used now; ``None`` where there is none, or another process has removed it."""
    try:
        os.utime(path)
        return load_store(path)
    except FileNotFoundError:
        return None
    except DataError:
        if path.exists():
            raise
        return None


def _used(path: Path) -> float:
    """Unix time at which a file was written or used; 0 where another process has removed it."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _remove_old(folder: Path) -> None:
    """All but the encoded files used last, which are copies of the data; what a killed process left half written."""
    made = sorted(folder.glob("encoded-*.npz"), key=_used)
    left = [path for path in folder.glob(".encoded-*.partial") if time.time() - _used(path) > HALF_WRITTEN_S]
    for path in (*made[: 1 - KEPT_ENCODED], *left):
        path.unlink(missing_ok=True)


def store_path(directory: Path, scenario: Scenario) -> Path:
    """Where a simulation keeps the clients that it encoded for a scenario: they depend on some sections alone."""
    sections = scenario.model_dump(mode="json", include={"task", "data", "vocabulary", "seed"})
    name = hashlib.sha256(json.dumps(sections, sort_keys=True).encode()).hexdigest()
    return directory / f"clients-{name[:16]}.npz"


def store_fingerprints(store: ClientStore) -> tuple[str, ...]:
    """A fingerprint for each client of a store, from its content and its name."""
    return tuple(data_fingerprint(store.client(i), owner=name) for i, name in enumerate(store.names))


def _files(path: Path) -> list[Path]:
    return [p for p in path.rglob("*") if p.is_file()] if path.is_dir() else [path] if path.exists() else []


def open_session(node_config: Mapping[str, Any], run_config: Mapping[str, Any]) -> Session:
    """The session of this node.

    A simulated node finds ``simulation`` (a directory) in the run configuration and its ``partition-id`` and
    ``num-partitions`` in its own. A site has ``site`` (a TOML file with ``name``, ``[data]`` and, where it is in a
    roster, ``[secure_aggregation]``), ``state-dir`` and ``policy`` in its node configuration, and nothing that the
    coordinator sends replaces them.

    Raises:
        ConfigError: neither is there, or the site file is wrong.
    """
    if "site" in node_config:
        state_dir = Path(str(node_config.get("state-dir", "")))
        if not str(node_config.get("state-dir", "")) or not node_config.get("policy"):
            raise ConfigError("a site needs `site`, `state-dir` and `policy` in its node configuration")
        state_dir.mkdir(parents=True, exist_ok=True)
        policy = read_policy(Path(str(node_config["policy"])))
        session = _site_session(Path(str(node_config["site"])), state_dir, policy)
        memory = int(str(node_config.get("gpu-memory-mib", 0)))
        session.device = Device(str(node_config.get("device", "auto")), memory, or_cpu=True)
        return session
    if run_config.get("simulation"):
        index, count = int(node_config["partition-id"]), int(node_config["num-partitions"])
        return _simulated_session(Path(str(run_config["simulation"])), index, count)
    raise ConfigError("this node has no data: its node configuration names no `site`")


@lru_cache(maxsize=4)  # a cache, not state: an evicted session costs a full table on the next round
def _simulated_session(directory: Path, index: int, count: int) -> Session:
    state_dir = directory / "nodes" / str(index)
    state_dir.mkdir(parents=True, exist_ok=True)
    return Session(
        StoreSource(directory, index, count),
        Ledger.open(directory / "ledger.sqlite"),
        Policy.permissive(),
        simulated=True,
        state_dir=state_dir,
    )


def site_description(site: Path) -> tuple[str, DataConfig, Party | None]:
    """Name, data and identity of a site, from its file.

    Raises:
        ConfigError: the file is wrong. SecAggError: its roster is.
    """
    try:
        raw = tomllib.loads(site.read_text(encoding="utf-8"))
        data = DataConfig.model_validate(raw.get("data", {}))
        name = str(raw["name"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, ValidationError, KeyError) as error:
        # a syntax error says line and column, and nothing that stands there
        told = error if isinstance(error, tomllib.TOMLDecodeError) else type(error).__name__
        raise ConfigError(
            f"cannot use the site file {site} ({told})",
            remedy="Correct it; `fedembed agent init` makes one to compare with, in another --home.",
        ) from None
    path = Path(data.path)
    data = data.model_copy(update={"path": str(path if path.is_absolute() else site.parent / path)})
    party = party_from(raw["secure_aggregation"], name, site.parent) if "secure_aggregation" in raw else None
    return name, data, party


def _site_session(site: Path, state_dir: Path, policy: Policy) -> Session:
    name, data, party = site_description(site)
    erase_forgotten(state_dir)
    known = any(state_dir.glob("run-*.json"))  # a site that has taken part has a ledger, or has lost it
    ledger = Ledger.open(state_dir / "ledger.sqlite", create=not known, today=lambda: datetime.date.today().isoformat())
    bundle = os.environ.get(BUNDLE_VARIABLE, "")
    account = (named_fingerprint(name),)
    source = SiteSource(name, data, state_dir)
    return Session(source, ledger, policy, state_dir=state_dir, party=party, bundle=bundle, accounts=account)
