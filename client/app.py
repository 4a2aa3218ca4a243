"""The Flower ClientApp: two handlers that turn messages into payloads and back. All work is in ``session``."""

from __future__ import annotations

import logging
from collections.abc import Callable

import flwr.app
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.node import open_session
from client.session import Session, failure_reply
from common import wire
from common.errors import FedembedError

_LOG = logging.getLogger("fedembed.client")


def session_of(context: Context) -> Session:
    """The session that this node's configuration describes."""
    return open_session(context.node_config, context.run_config)


def build_app(
    session_for: Callable[[Context], Session], failed: Callable[[FedembedError], None] = lambda error: None
) -> ClientApp:
    """A ClientApp whose sessions come from ``session_for``: the in-process engine hands out sessions in memory.

    ``failed`` is told of every error that is answered with a refusal.
    """
    client_app = ClientApp()

    @client_app.query("prepare")
    def prepare(message: Message, context: Context) -> Message:
        return _answer(message, context, Session.prepare)

    @client_app.train("round")
    def train(message: Message, context: Context) -> Message:
        return _answer(message, context, Session.train)

    def _answer(message: Message, context: Context, handle: Callable[[Session, wire.Payload], wire.Payload]) -> Message:
        payload = wire.unpack(message.content)
        try:
            reply = handle(session_for(context), payload)
        except FedembedError as error:
            failed(error)
            reply = failure_reply(str(payload.config.get("run", "")), error)
        return Message(wire.pack(reply, flwr.app), reply_to=message)

    return client_app


def _logged(error: FedembedError) -> None:
    _LOG.error("%s: %s %s", type(error).__name__, error.message, error.hint)


app = build_app(session_of, _logged)
