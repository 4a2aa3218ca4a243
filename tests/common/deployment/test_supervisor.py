"""The supervisor: order, restarts with growing pauses, the end of all that was started, even when it is killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from common.deployment import supervisor as supervisor_module
from common.deployment.flower import free_port, port_answers
from common.deployment.logs import bound_logs
from common.deployment.supervisor import Program, Supervisor, program_gauges
from common.errors import DependencyError, DeploymentError

pytestmark = pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv (util-linux) is not installed")


class Events:
    """What a supervisor tells."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def __call__(self, event: str, facts: Mapping[str, object]) -> None:
        self.lines.append({"event": event, **facts})

    def of(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]


def program(folder: Path, name: str, script: str, **options: Any) -> Program:
    command = ["sh", "-c", script]
    return Program(name, command, {"PATH": os.environ["PATH"]}, folder, folder / f"{name}.log", **options)


def until(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def runs(pid: int) -> bool:
    """Whether a process is there and not a zombie that nobody has fetched."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_programs_start_in_order_and_end_with_what_they_started(tmp_path: Path) -> None:
    events = Events()
    ready = tmp_path / "ready"
    script = f"sleep 60 & echo $! > {tmp_path}/child; touch {ready}; wait"
    first = program(tmp_path, "first", script, ready=ready.exists)
    second = program(tmp_path, "second", f"test -e {ready} && exec sleep 60")
    supervisor = Supervisor([first, second], events)
    supervisor.start()
    assert supervisor.alive() == {"first": True, "second": True}
    child = int((tmp_path / "child").read_text())
    assert runs(child)
    supervisor.end()
    assert until(lambda: not runs(child)), "the group ends, not its leader alone"
    assert [line["program"] for line in events.of("ended")] == ["second", "first"]
    assert supervisor.alive() == {"first": False, "second": False}


def test_what_ends_comes_back_after_a_pause_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "LONGEST_PAUSE_S", 5.0)
    clock = [0.0]
    monkeypatch.setattr(supervisor_module.time, "monotonic", lambda: clock[0])
    events = Events()
    supervisor = Supervisor([program(tmp_path, "p", "exit 3")], events)
    running = supervisor._running[0]
    for _ in range(5):
        supervisor._launch(running)
        assert running.process is not None
        running.process.wait()
        supervisor._look_after(running)
        supervisor._look_after(running)
        assert running.process is None, "not before the pause is over"
        clock[0] += running.pause_s
    assert [line["again_in_s"] for line in events.of("died")] == [2.0, 4.0, 5.0, 5.0, 5.0]
    assert {line["exit_code"] for line in events.of("died")} == {3}
    supervisor._look_after(running)
    assert supervisor.restarts() == {"p": 1} and running.process is not None
    running.process.wait()
    clock[0] += supervisor_module.STEADY_AFTER_S + 1
    supervisor._look_after(running)
    assert running.pause_s == 1.0, "whoever ran for long is started again soon"


def test_what_a_dead_program_left_is_ended(tmp_path: Path) -> None:
    supervisor = Supervisor([program(tmp_path, "p", f"sleep 60 & echo $! > {tmp_path}/child; exit 1")], Events())
    running = supervisor._running[0]
    supervisor._launch(running)
    assert running.process is not None
    running.process.wait()
    child = int((tmp_path / "child").read_text())
    supervisor._look_after(running)
    assert until(lambda: not runs(child))


@pytest.mark.parametrize(("script", "words"), [("echo sorry; exit 1", "sorry"), ("echo slow; sleep 60", "slow")])
def test_a_program_that_never_gets_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, words: str
) -> None:
    monkeypatch.setattr(supervisor_module, "READY_TIMEOUT_S", 0.4)
    supervisor = Supervisor(
        [program(tmp_path, "fine", "exec sleep 60"), program(tmp_path, "bad", script, ready=lambda: False)], Events()
    )
    with pytest.raises(DeploymentError, match=f"bad did not start: {words}"):
        supervisor.start()
    assert not any(supervisor.alive().values()), "the others are ended"


def test_a_command_or_an_account_that_is_not_there(tmp_path: Path) -> None:
    absent = Program("p", ["no-such-command"], {}, tmp_path, tmp_path / "p.log")
    with pytest.raises(DependencyError, match="no-such-command"):
        Supervisor([absent], Events()).start()
    with pytest.raises(DependencyError, match="no user 'nobody-of-that-name'"):
        Supervisor([program(tmp_path, "p", "exit 0", user="nobody-of-that-name")], Events()).start()


_LISTENING = """
import os, pathlib, socket, sys, time
listener = socket.socket()
listener.bind(("127.0.0.1", int(sys.argv[1])))
listener.listen()
if os.fork() == 0:
    os.setpgid(0, 0) if sys.argv[2] == "own group" else None
    pathlib.Path(sys.argv[3]).write_text("")
    time.sleep(60)
listener.close()
while not pathlib.Path(sys.argv[3]).exists():
    time.sleep(0.01)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("group", ["same group", "own group"])
@pytest.mark.parametrize("told_to_stop", [False, True])
def test_a_worker_that_outlives_its_killed_master_does_not_keep_the_port(
    tmp_path: Path, group: str, told_to_stop: bool
) -> None:
    """As nginx's do when the master is killed; also where the supervisor is told to stop before it has noticed."""
    port, log = free_port(), tmp_path / "log"
    command = [sys.executable, "-c", _LISTENING, str(port), group, str(tmp_path / "forked")]
    ready = lambda: log.exists() and "ready" in log.read_text()  # noqa: E731
    supervisor = Supervisor([Program("p", command, dict(os.environ), tmp_path, log, ready)], Events())
    supervisor.start()
    running = supervisor._running[0]
    assert running.process is not None
    running.process.kill()
    running.process.wait()
    assert port_answers(port), "the worker goes on"
    supervisor.end() if told_to_stop else supervisor._look_after(running)
    assert not port_answers(port)
    supervisor.end()


def test_a_program_runs_only_while_the_one_before_it_is_settled(tmp_path: Path) -> None:
    """A proxy opens when it is in order who may pass, at the start and after every restart of what is behind it."""
    events, order = Events(), tmp_path / "order"
    failures = iter([False, True, False])

    def settle() -> None:
        if next(failures):
            raise DeploymentError("not yet")
        order.write_text(order.read_text() + "settled " if order.exists() else "settled ")

    first = program(tmp_path, "first", "exec sleep 60", settle=settle)
    proxy = program(tmp_path, "proxy", f"printf 'open ' >> {order}; exec sleep 60", behind="first")
    supervisor = Supervisor([first, proxy], events)
    supervisor.start()
    assert until(lambda: order.exists() and order.read_text() == "settled open ")
    process = supervisor._running[0].process
    assert process is not None
    process.kill()
    process.wait()
    first_running, proxy_running = supervisor._running
    supervisor._look_after(first_running)
    supervisor._look_after(proxy_running)
    assert supervisor.alive() == {"first": False, "proxy": False}, "nobody passes while nothing is in order"
    first_running.not_before = 0.0
    supervisor._look_after(first_running)
    supervisor._look_after(proxy_running)
    assert supervisor.alive() == {"first": True, "proxy": False}, "it runs, and has not settled"
    supervisor._look_after(first_running)
    supervisor._look_after(proxy_running)
    assert events.of("unsettled") == [{"event": "unsettled", "program": "first", "reason": "not yet"}]
    assert supervisor.alive() == {"first": True, "proxy": False}, "it tried to settle, and could not"
    first_running.not_before = 0.0
    supervisor._look_after(first_running)
    supervisor._look_after(proxy_running)
    assert until(lambda: order.read_text() == "settled open settled open ")
    supervisor.end()


def test_a_program_that_cannot_settle_lets_nothing_start(tmp_path: Path) -> None:
    def settle() -> None:
        raise DeploymentError("out of order")

    first = program(tmp_path, "first", "exec sleep 60", settle=settle)
    supervisor = Supervisor([first, program(tmp_path, "proxy", "touch open; exec sleep 60", behind="first")], Events())
    with pytest.raises(DeploymentError, match="out of order"):
        supervisor.start()
    assert supervisor.alive() == {"first": False, "proxy": False} and not (tmp_path / "open").exists()


def test_logs_are_bounded_while_a_program_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor_module, "bound_logs", partial(bound_logs, largest=1000))
    script = f"exec 3>>{tmp_path}/access; while :; do echo out; echo line >&3; sleep 0.005; done"
    supervisor = Supervisor([program(tmp_path, "p", script, more_logs=[tmp_path / "access"])], Events())
    supervisor.start()
    thread = threading.Thread(target=supervisor.watch)
    thread.start()
    try:
        names = ("p.log", "access")
        assert until(lambda: all((tmp_path / f"{name}.1").exists() for name in names), 10)
        for name in names:
            assert (tmp_path / f"{name}.1").stat().st_size > 1000
            assert until(lambda name=name: 0 < (tmp_path / name).stat().st_size < 1000)  # type: ignore[misc]
            assert b"\0" not in (tmp_path / name).read_bytes(), "whoever appends goes on where the file ends now"
    finally:
        supervisor.stop()
        thread.join()


_KILLED = """
import os, sys
from pathlib import Path
from common.deployment.flower import free_port, port_answers
from common.deployment.logs import bound_logs
from common.deployment.supervisor import Program, Supervisor
user = sys.argv[2] or None
command = ["sh", "-c", "echo $$ > pid; cat /proc/$$/status > status; exec sleep 60"]
folder = Path(sys.argv[1])
Supervisor([Program("p", command, {"PATH": os.environ["PATH"]}, folder, folder / "log", user=user)], print).start()
os.kill(os.getpid(), 9) if (folder / "now").exists() else input()
"""


@pytest.mark.parametrize("user", ["", "nobody"])
def test_a_killed_supervisor_takes_its_programs_along(tmp_path: Path, root: Path, user: str) -> None:
    if user and os.geteuid() != 0:
        pytest.skip("only root starts programs as another account")
    tmp_path.chmod(0o777)
    for path in (tmp_path.parent, tmp_path.parent.parent):
        path.chmod(0o755)
    command = [sys.executable, "-c", _KILLED, str(tmp_path), user]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env=os.environ | {"PYTHONPATH": str(root)}
    ) as parent:
        assert until(lambda: (tmp_path / "status").exists() and "NoNewPrivs" in (tmp_path / "status").read_text(), 20)
        pid = int((tmp_path / "pid").read_text())
        assert runs(pid)
        parent.send_signal(signal.SIGKILL)
    assert until(lambda: not runs(pid))
    status = dict(line.split(":\t", 1) for line in (tmp_path / "status").read_text().splitlines() if ":\t" in line)
    assert status["NoNewPrivs"] == "1"
    if user:
        assert status["Uid"].split()[0] != "0" and status["CapEff"].strip("0") == ""


def test_gauges(tmp_path: Path) -> None:
    found = {gauge.name: gauge.values for gauge in program_gauges(Supervisor([program(tmp_path, "p", "")], Events()))}
    assert found == {"fedembed_program_up": {"p": 0.0}, "fedembed_program_restarts": {"p": 0}}
