"""The Flower ClientApp: two handlers that turn messages into payloads and back. All work is in ``session``."""

from __future__ import annotations

import logging
from collections.abc import Callable

import flwr.app
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.answers import failure_reply
from client.node import open_session
from client.session import Session
from common import wire
from common.errors import FedembedError

_LOG = logging.getLogger("fedembed.client")


def session_of(context: Context) -> Session:
    """The session that this node's configuration describes."""
    return open_session(context.node_config, context.run_config)


def build_app(
    session_for: Callable[[Context], Session], failed: Callable[[Exception], None] | None = None
) -> ClientApp:
    """A ClientApp whose sessions come from ``session_for``: the in-process engine hands out sessions in memory.

    With ``failed``, which is told of it, every error is answered with a refusal: Flower would send the text of others
    to the coordinator, and it may speak of the data. Without, errors that are not fedembed's own are raised.
    """
    client_app = ClientApp()

    @client_app.query("prepare")
    def prepare(message: Message, context: Context) -> Message:
        return _answer(message, context, Session.prepare)

    @client_app.train("round")
    def train(message: Message, context: Context) -> Message:
        return _answer(message, context, Session.train)

    def secure_hop(name: str) -> Callable[[Message, Context], Message]:
        def serve(message: Message, context: Context) -> Message:
            from client import secure_hops

            return _answer(message, context, getattr(secure_hops, name))

        return serve

    for name in ("advertise", "share", "confirm", "reveal"):
        client_app.query(name)(secure_hop(name))
    for name in ("mask", "unmasked"):
        client_app.train(name)(secure_hop(name))

    def _answer(message: Message, context: Context, handle: Callable[[Session, wire.Payload], wire.Payload]) -> Message:
        payload = wire.unpack(message.content)
        try:
            reply = handle(session_for(context), payload)
        except Exception as error:
            if failed is None and not isinstance(error, FedembedError):
                raise
            if failed is not None:
                failed(error)
            reply = failure_reply(str(payload.config.get("run", "")), error)
        return Message(wire.pack(reply, flwr.app), reply_to=message)

    return client_app


def _logged(error: Exception) -> None:
    if isinstance(error, FedembedError):
        _LOG.error("%s: %s %s", type(error).__name__, error.message, error.hint)
    else:
        _LOG.error("the node failed", exc_info=error)


app = build_app(session_of, _logged)
