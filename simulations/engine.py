"""The in-process engine: Flower's own message, ClientApp and ServerApp objects, carried by function calls.

Every private name of Flower that this needs stands in this module and nowhere else; ``tests/simulations/test_engine``
is the contract that notices when a Flower release moves one of them.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

RUN_ID, TASK_ID, SERVER_NODE_ID = 1, 1, 1
CLIENT_APP_RAISED, NODE_UNAVAILABLE = 2, 5
FIRST_NODE_ID = 1001


class InProcessGrid(Grid):
    """Delivers each message by calling the ClientApp; replies wait until they are pulled.

    Args:
        client_app: called once a message, as a deployed node would call it.
        node_configs: one node configuration a node; node k has the number ``FIRST_NODE_ID + k``.
        run_config: what every context carries as run configuration.
        byte_exact: pass every message through Flower's serialisation, in both directions. Slower; tests use it to
            find data that cannot travel or that both sides share.
        offline: asked before each delivery; nodes for which it is true answer like a dead node.
        witness: is shown every answer that has a content: what a coordinator sees.
    """

    def __init__(  # the settings of one engine belong together
        self,
        client_app: ClientApp,
        node_configs: list[Mapping[str, Any]],
        *,
        run_config: Mapping[str, Any] | None = None,
        byte_exact: bool = False,
        offline: Callable[[int], bool] = lambda node_id: False,
        witness: Callable[[Message], None] = lambda reply: None,
    ) -> None:
        TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = RUN_ID, TASK_ID, SERVER_NODE_ID
        self._run = Run.create_empty(RUN_ID)
        self._client_app = client_app
        self._byte_exact = byte_exact
        self._offline = offline
        self._witness = witness
        self._contexts = {
            FIRST_NODE_ID + k: _context(FIRST_NODE_ID + k, dict(config), dict(run_config or {}))
            for k, config in enumerate(node_configs)
        }
        self._replies: dict[str, Message] = {}
        self._sent = 0
        self.delivered_errors: list[str] = []
        self.raised: list[Exception] = []

    def set_run(self, run: Run) -> None:
        self._run = run

    @property
    def run(self) -> Run:
        return self._run

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        return Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> Iterable[int]:
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        ids = []
        for message in messages:
            self._sent += 1
            message_id = f"m{self._sent}"
            message.metadata.__dict__["_message_id"] = message_id
            self._replies[message_id] = self._deliver(message)
            ids.append(message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        return [self._replies.pop(i) for i in message_ids if i in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        return self.pull_messages(self.push_messages(messages))

    def _deliver(self, message: Message) -> Message:
        node_id = message.metadata.dst_node_id
        context = self._contexts.get(node_id)
        if context is None or self._offline(node_id):
            return self._from_dead_node(message)
        received = self._copied(message)
        try:
            reply = self._client_app(received, context)
        except Exception as error:  # a node may fail in any way; the server sees Flower's own error reply
            self.delivered_errors.append(traceback.format_exc())
            self.raised.append(error)
            return Message(Error(CLIENT_APP_RAISED, f"{type(error)}"), reply_to=message)
        if reply.has_content():
            self._witness(reply)
        return self._copied(reply)

    def _from_dead_node(self, message: Message) -> Message:
        """Flower's SuperLink answers for a dead node under its own number, 1."""
        reply = Message(Error(NODE_UNAVAILABLE, "Node Unavailable"), reply_to=message)
        reply.metadata.__dict__["_src_node_id"] = SERVER_NODE_ID
        return reply

    def _copied(self, message: Message) -> Message:
        if not self._byte_exact or not message.has_content():
            return message
        contents = {i: o.deflate() for i, o in get_all_nested_objects(message.content).items()}
        message.content = cast(RecordDict, inflate_object_from_contents(message.content.object_id, contents))
        return message


def _context(node_id: int, node_config: dict[str, Any], run_config: dict[str, Any]) -> Context:
    return Context(run_id=RUN_ID, node_id=node_id, node_config=node_config, state=RecordDict(), run_config=run_config)


def run_in_process(server_app: ServerApp, grid: InProcessGrid, run_config: Mapping[str, Any]) -> None:
    """Run a ServerApp to its end on an in-process grid. Whatever it raises reaches the caller."""
    server_app(grid, _context(SERVER_NODE_ID, {}, dict(run_config)))
