"""The Flower ServerApp: reads the run configuration and hands over to ``coordinate``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from flwr.app import Context, UserConfig
from flwr.serverapp import Grid, ServerApp

from common.config import scenario_from_json
from common.errors import ConfigError, FedembedError
from common.secagg.keys import Identity
from server.coordinate import coordinate
from server.exchange import Exchange
from server.progress import JournalReporter, Reporter
from server.run import Outcome
from server.sender import Sender


def build_app(
    reporter_for: Callable[[Path], Reporter],
    finished: Callable[[Outcome], None] = lambda outcome: None,
    failed: Callable[[Path, FedembedError], None] = lambda out, error: None,
) -> ServerApp:
    """A ServerApp that tells ``reporter_for`` its folder how it goes, and ``finished`` or ``failed`` how it ended."""
    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        """Run configuration: ``scenario`` (canonical JSON), ``out`` (a directory); optional ``benchmarks`` (JSON).

        ``coordinator`` is the file of the key that signs, ``bundle`` the hash of this code; both are optional.
        """
        config = context.run_config
        if not config.get("scenario") or not config.get("out"):
            raise ConfigError("the run configuration needs `scenario` (JSON) and `out` (a directory)")
        scenario = scenario_from_json(str(config["scenario"]))
        files = json.loads(str(config.get("benchmarks") or "{}"))
        benchmarks = {name: Path(path) for name, path in files.items()}
        out = Path(str(config["out"]))
        exchange = Exchange(
            grid, scenario.federation.round_timeout_s, _sender(config), one_by_one=not config.get("simulation")
        )
        try:
            finished(coordinate(exchange, scenario, out, reporter=reporter_for(out), benchmarks=benchmarks))
        except FedembedError as error:
            failed(out, error)
            raise

    return server_app


def _sender(config: UserConfig) -> Sender:
    key = str(config.get("coordinator") or "")
    identity = Identity.from_pem(Path(key).read_bytes()) if key else None
    return Sender(identity, str(config.get("bundle") or ""))


app = build_app(JournalReporter, failed=lambda out, error: JournalReporter(out).failed(error))
