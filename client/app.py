"""The Flower ClientApp: two handlers that turn messages into payloads and back. All work is in ``session``."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import flwr.app
from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from client.answers import failure_reply, node_reply
from client.node import ACTIVITY_FILE, open_session
from client.session import Session
from common import wire
from common.deployment.journal import Journal
from common.errors import DataError, FedembedError

_LOG = logging.getLogger("fedembed.client")
Handler = Callable[[Session, wire.Payload], wire.Payload]


def session_of(context: Context) -> Session:
    """The session that this node's configuration describes."""
    return open_session(context.node_config, context.run_config)


@dataclass(frozen=True)
class Desk:
    """Answers one message after the other.

    Attributes:
        session_for: the session of a node: the in-process engine hands out sessions in memory.
        failed: where there is one, it is told of every error, and the answer is a refusal: Flower would send the text
            of others to the coordinator, and it may speak of the data. Without one, errors that are not fedembed's own
            are raised.
        told: hears of every answer before it leaves: node, kind of message, answer, and the seconds that it took.
    """

    session_for: Callable[[Context], Session]
    failed: Callable[[Exception], None] | None = None
    told: Callable[[Context, str, wire.Payload, float], None] = lambda context, kind, reply, seconds: None

    def answer(self, message: Message, context: Context, handle: Handler) -> Message:
        """The reply to a message."""
        payload, began = wire.unpack(message.content), time.monotonic()
        try:
            reply = handle(self._session(context), payload)
        except Exception as error:
            if self.failed is None and not isinstance(error, FedembedError):
                raise
            if self.failed is not None:
                self.failed(error)
            reply = failure_reply(str(payload.config.get("run", "")), error)
        self.told(context, message.metadata.message_type, reply, time.monotonic() - began)
        return Message(wire.pack(reply, flwr.app), reply_to=message)

    def _session(self, context: Context) -> Session:
        """Whatever is wrong with this node's own settings is for its operator: it names files and keys."""
        try:
            return self.session_for(context)
        except FedembedError as error:
            raise DataError(f"this node's settings: {error.message}", remedy=error.hint) from error


def build_app(
    session_for: Callable[[Context], Session], failed: Callable[[Exception], None] | None = None
) -> ClientApp:
    """A ClientApp that answers with the sessions of ``session_for``; see ``Desk``."""
    return app_of(Desk(session_for, failed))


def app_of(desk: Desk) -> ClientApp:
    """A ClientApp with one handler for each message that a coordinator sends."""
    client_app = ClientApp()

    @client_app.query("present")
    def present(message: Message, context: Context) -> Message:
        """A sign of life, of no session: whatever was asked before it is answered, or lost."""
        run = str(wire.unpack(message.content).config.get("run", ""))
        return Message(wire.pack(node_reply(run, status="present"), flwr.app), reply_to=message)

    @client_app.query("prepare")
    def prepare(message: Message, context: Context) -> Message:
        return desk.answer(message, context, Session.prepare)

    @client_app.train("round")
    def train(message: Message, context: Context) -> Message:
        return desk.answer(message, context, Session.train)

    def secure_hop(name: str) -> Callable[[Message, Context], Message]:
        def serve(message: Message, context: Context) -> Message:
            from client import secure_hops

            return desk.answer(message, context, getattr(secure_hops, name))

        return serve

    for name in ("advertise", "share", "confirm", "reveal"):
        client_app.query(name)(secure_hop(name))
    for name in ("mask", "unmasked"):
        client_app.train(name)(secure_hop(name))
    return client_app


def _logged(error: Exception) -> None:
    if isinstance(error, FedembedError):
        _LOG.error("%s: %s %s", type(error).__name__, error.message, error.hint)
    else:  # where it happened, and not what it says: the text of such an error can be a record
        frames = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in reversed(frames))
        _LOG.error("the node failed: %s at %s", type(error).__name__, places)


def _recorded(context: Context, kind: str, reply: wire.Payload, seconds: float) -> None:
    """A line in the site's own journal: which message, what answer, how long it took."""
    folder = context.node_config.get("state-dir")
    if folder:
        facts = {key: reply.config[key] for key in ("run", "status", "code", "reason", "round") if key in reply.config}
        Journal(Path(str(folder)) / ACTIVITY_FILE).write(
            "answered", {"kind": kind, **facts, "seconds": round(seconds, 3)}
        )


app = app_of(Desk(session_of, _logged, _recorded))
