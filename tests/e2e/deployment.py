"""A real SuperLink with real SuperNodes on loopback, one data path each: what the engine comparison runs against."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from common.config import Scenario
from common.deployment.flower import (
    assemble_app,
    background,
    flower_environment,
    free_port,
    run_log,
    run_status,
    start_run,
    wait_for_port,
    write_connection,
)
from simulations import corpora

RUN_TIMEOUT_S = 200.0
SITES = ("north", "south", "west")


def planted_texts(folder: Path, *, every: int) -> Path:
    """``folder`` with a text file for each site, of one planted text in ``every``, and a public vocabulary."""
    texts = [record.value for record in corpora.load("planted")]
    (folder / "texts").mkdir()
    for k, name in enumerate(SITES):
        (folder / "texts" / f"{name}.txt").write_text("\n".join(texts[k::every]) + "\n")
    words = corpora.vocabulary("planted")
    (folder / "words.tsv").write_text("".join(f"{w}\t{n}\n" for w, n in words.items()))
    return folder


def site_files(folder: Path, name: str, data_file: Path) -> Path:
    """A site's folder: its description, its policy, and room for its state."""
    site = folder / f"site-{name}"
    (site / "state").mkdir(parents=True)
    (site / "site.toml").write_text(f'name = "{name}"\n\n[data]\nreader = "text"\npath = "{data_file}"\n')
    (site / "policy.toml").write_text(
        'max_epsilon = inf\nmax_delta = 1e-3\nmodes = ["local", "example"]\n'
        'units = ["client", "record"]\ntest_mode = true\n'
    )
    return site


@contextmanager
def deployment(home: Path, sites: list[Path], run_config: dict[str, str]) -> Iterator[tuple[Path, dict[str, str]]]:
    """SuperLink and one SuperNode a site; yields the app folder and the environment to submit runs from."""
    home.mkdir()
    environment = flower_environment(home)
    app = assemble_app(home / "app", run_config)
    port = free_port()
    common = ["--insecure", "--host", "127.0.0.1"]
    with ExitStack() as stack:
        superlink = ["flower-superlink", *common, "--port", str(port), "--database", str(home / "state.db")]
        superlink.append("--disable-runtime-dependency-installation")
        log = home / "superlink.log"
        process = stack.enter_context(background(superlink, cwd=home, environment=environment, log=log))
        wait_for_port(port, process, log)
        write_connection(home, port)
        for site in sites:
            stack.enter_context(_supernode(site, port, environment))
        yield app, environment


@contextmanager
def _supernode(site: Path, port: int, environment: dict[str, str]) -> Iterator[object]:
    config = f'site="{site / "site.toml"}" state-dir="{site / "state"}" policy="{site / "policy.toml"}"'
    command = ["flower-supernode", "--insecure", "--superlink", f"127.0.0.1:{port}", "--host", "127.0.0.1"]
    command += ["--port", str(free_port()), "--node-config", config]
    own = {**environment, "FLWR_HOME": str(site / "flwr")}
    with background(command, cwd=site, environment=own, log=site / "supernode.log") as process:
        yield process


def run_to_end(app: Path, environment: dict[str, str]) -> None:
    """Submit a run and wait until Flower says that it completed."""
    run_id = start_run(app, environment)
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while not (status := run_status(run_id, environment)).startswith("finished"):
        if time.monotonic() > deadline:
            raise TimeoutError(f"run is {status}: {run_log(run_id, environment)}")
        time.sleep(1.0)
    if status != "finished:completed":
        raise RuntimeError(f"run ended as {status}: {run_log(run_id, environment)}")


def run_config_for(scenario: Scenario, out: Path) -> dict[str, str]:
    """The run configuration that the two apps read."""
    return {"scenario": scenario.canonical_json(), "out": str(out), "benchmarks": "{}", "simulation": ""}
