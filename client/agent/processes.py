"""``fedembed agent up``: Flower's SuperNode and its executor, kept running under an account of their own."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial

from client.agent.approval import OTHER_COMMANDS, TASK_COMMAND, approved_bundles
from client.agent.fork_server import socket_path
from client.agent.home import POLICY_FILE, SITE_FILE, AgentHome, hand_over
from client.agent.record import spent
from client.agent.task import HOME_VARIABLE
from client.node import ACTIVITY_FILE
from client.policy import read_policy
from common.deployment.flower import flower_environment, port_answers
from common.deployment.journal import Journal
from common.deployment.running import Watching, refuse_taken, run_until_told
from common.deployment.supervisor import Program
from common.deployment.watching import Gauge
from common.errors import DeploymentError

EXECUTOR_POLL_S = "0.25"  # a message waits half of it; every look costs some milliseconds
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
_PYTHON = ("PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
_NETWORK = ("HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy")
PASSED_ON = frozenset((*_THREADS, *_PYTHON, *_NETWORK))
PROGRAMS = ("fork_server", "node", "executor")


def programs(home: AgentHome) -> list[Program]:
    """The node, the executor that starts one process a message, and the process that these are forked from."""
    settings, folder = home.settings, home.folder
    secret = ["--superexec-auth-secret-file", str(folder / "keys" / "executor.secret")]
    runtime = f"127.0.0.1:{settings.runtime_port}"
    described = f'site="{folder / SITE_FILE}" state-dir="{folder / "state"}" policy="{folder / POLICY_FILE}"'
    described += f' device="{settings.device}" gpu-memory-mib={settings.gpu_memory_mib}'
    node = ["flower-supernode", "--root-certificates", str(folder / "tls" / "ca.crt")]
    node += ["--superlink", settings.address, "--auth-supernode-private-key", str(folder / "keys" / "node")]
    node += ["--host", "127.0.0.1", "--port", str(settings.runtime_port), "--isolation", "process", *secret]
    node += ["--node-config", described]
    executor = ["flower-superexec", "--runtime-api-address", runtime, "--insecure", *secret]
    environment = environment_of(home)

    def program(name: str, command: list[str], ready: Callable[[], bool] = lambda: True) -> Program:
        return Program(name, command, environment, folder / "state", folder / "logs" / f"{name}.log", ready, home.user)

    forks = [sys.executable, "-m", "client.agent.fork_server"]

    return [
        program("fork_server", forks, socket_path(folder).exists),
        program("node", node, partial(port_answers, settings.runtime_port)),
        program("executor", executor),
    ]


def environment_of(home: AgentHome) -> dict[str, str]:
    """Flower's environment, with the approved bundles as its home and our command before its own.

    Of the operator's environment a few names are passed on: the rest may hold secrets, and the agent has no use for it.
    """
    inherited = flower_environment(home.folder, {k: v for k, v in os.environ.items() if k in PASSED_ON})
    return {
        **inherited,
        "FLWR_HOME": str(home.inside("approved")),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": EXECUTOR_POLL_S,
        "HOME": str(home.inside("scratch")),
        "TMPDIR": str(home.inside("scratch")),
        "PATH": f"{home.inside('bin')}:{inherited.get('PATH', '')}",
        "PYTHONDONTWRITEBYTECODE": "1",
        HOME_VARIABLE: str(home.folder),
    }


def up(home: AgentHome, tell: Journal) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        DeploymentError: no bundle is approved, root would run the node, a port is taken, or a program did not start.
        ConfigError: the policy is missing or wrong.
    """
    _refuse_unfit(home)
    hand_over(home)
    for name in PROGRAMS:
        home.inside("logs", f"{name}.log").touch()
    settings = home.settings
    watching = Watching(settings.health_port, settings.metrics_port, partial(_gauges, home))
    run_until_told(home.folder, programs(home), tell, watching, lambda: {"coordinator": settings.coordinator})


def _refuse_unfit(home: AgentHome) -> None:
    if os.geteuid() == 0 and home.user in (None, "root"):
        raise DeploymentError(
            "root would run code that serves another party's messages",
            remedy='Name an account in agent.toml: user = "fedembed" (useradd --system fedembed).',
        )
    launchers = (home.inside("bin", name) for name in (TASK_COMMAND, *OTHER_COMMANDS))
    if not approved_bundles(home.folder) or not all(path.exists() for path in launchers):
        raise DeploymentError("no bundle is approved: nothing could run", remedy="fedembed agent approve-bundle")
    read_policy(home.inside(POLICY_FILE))
    settings = home.settings
    refuse_taken("agent", (settings.runtime_port, settings.health_port, settings.metrics_port))


def _gauges(home: AgentHome) -> Iterator[Gauge]:
    """Facts about runs, and the account; nothing about the data."""
    answers = Counter(str(line.get("status")) for line in Journal(home.inside("state", ACTIVITY_FILE)).read())
    yield Gauge("fedembed_answers", "messages answered, by status", answers, "status")
    yield Gauge(
        "fedembed_epsilon_spent", "privacy spent, by the ledger", {a.unit: a.epsilon for a in spent(home)}, "unit"
    )
