"""A process that has imported everything, and forks itself for every message.

Flower starts a new process a message; importing torch, Opacus and the accountants takes each of them many times as
long as the message itself. A fork has them at once, shares their memory, and knows nothing of other messages.
It imports and never computes before it forks: no thread, no GPU and no random generator is taken along.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

HOME_VARIABLE = "FEDEMBED_AGENT_HOME"
CODE_VARIABLE = "FEDEMBED_CODE"  # digest of the code that a fork has imported, as it stood on disk before that
_LONGEST = 65_536
_CONNECTIONS = 8


def socket_path(folder: Path) -> Path:
    """Where the fork server listens; only the agent's own account may connect."""
    return folder / "scratch" / "fork.sock"


def main() -> None:
    """Listen until the process is ended; the environment variable ``FEDEMBED_AGENT_HOME`` names the site's folder."""
    path = socket_path(Path(os.environ[HOME_VARIABLE]))
    path.unlink(missing_ok=True)
    remember_code()
    preload()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the forks
    os.umask(0o077)
    os.chdir(path.parent)  # a socket's path may be 107 bytes long; a name in this folder is short
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(path.name)
        door.listen(_CONNECTIONS)
        while True:
            connection, _ = door.accept()
            with connection:
                _serve(connection, door)


def remember_code() -> None:
    """Note the code that this process is going to import: what stands on disk may be replaced under it."""
    from client.agent.approval import installed_code

    os.environ[CODE_VARIABLE] = installed_code()


def preload() -> None:
    """Import what messages need."""
    import httpcore
    import opacus
    import torch
    from flwr.supernode.cli import flwr_clientapp
    from flwr.supernode.runtime import run_clientapp

    from client import app, secure_hops
    from client.agent import task
    from common import families
    from common.privacy import pld

    for name in families.names():
        families.load(name)
    loaded = (httpcore, opacus, torch, flwr_clientapp, run_clientapp, app, secure_hops, task, pld)
    print(f"{len(loaded)} modules with all that they need are imported", flush=True)


def _serve(connection: socket.socket, door: socket.socket) -> None:
    """Fork for one message. What is not a message is dropped: whoever asks is our own account."""
    data, outputs, _, _ = socket.recv_fds(connection, _LONGEST, 2)
    try:
        arguments = [str(word) for word in json.loads(data)]
    except ValueError:
        arguments = []
    if not arguments or len(outputs) != 2:
        return
    if os.fork() == 0:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, output in zip((1, 2), outputs, strict=True):
            os.dup2(output, number)
        door.close()
        connection.close()
        sys.argv = arguments
        _run()
    for output in outputs:
        os.close(output)


def _run() -> None:
    """Serve one message in this process, and end it."""
    from client.agent.task import main as serve

    try:
        serve()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else 1
    except BaseException as error:
        print(f"{type(error).__name__}: the message was not served", file=sys.stderr)
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
