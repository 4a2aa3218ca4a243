"""Flower's own empty exchange, as one file that is packed into an app of its own: nothing of ours is imported."""

from __future__ import annotations

import json
import time
from pathlib import Path

from flwr.app import Context, Message, MessageType, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp

client_app = ClientApp()
server_app = ServerApp()


@client_app.query()
def answer(message: Message, context: Context) -> Message:
    """Nothing, for nothing."""
    return Message(RecordDict(), reply_to=message)


@server_app.main()
def exchanges(grid: Grid, context: Context) -> None:
    """Ask every node ``exchanges`` times and write the seconds of each to ``out``."""
    wanted, seconds = int(context.run_config["nodes"]), []
    while len(list(grid.get_node_ids())) < wanted:
        time.sleep(0.5)
    for _ in range(int(context.run_config["exchanges"])):
        started = time.monotonic()
        asked = [Message(RecordDict(), node, MessageType.QUERY) for node in grid.get_node_ids()]
        replies = list(grid.send_and_receive(asked))
        if len(replies) != wanted or any(reply.has_error() for reply in replies):
            raise RuntimeError("an empty exchange failed")
        seconds.append(time.monotonic() - started)
    Path(str(context.run_config["out"])).write_text(json.dumps(seconds))
