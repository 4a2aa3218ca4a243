"""``fedembed coordinator up``: SuperLink, executor and proxy, kept running and watched."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from common.deployment.certificates import expires
from common.deployment.flower import flower_environment, port_answers, write_connection
from common.deployment.journal import Journal
from common.deployment.running import Watching, refuse_taken, run_until_told
from common.deployment.supervisor import Program
from common.deployment.watching import Gauge
from common.errors import DependencyError, DeploymentError
from server.coordinator import proxy, runs, sites
from server.coordinator.home import Home

PROGRAMS = ("superlink", "executor", "proxy")


def environment_of(home: Home) -> dict[str, str]:
    """Environment of Flower's tools that speak with this coordinator's SuperLink."""
    return flower_environment(home.folder / "flower")


def programs(home: Home) -> list[Program]:
    """SuperLink on loopback with node authentication; an executor that alone may take up runs; the proxy."""
    port, folder = home.settings.loopback.superlink_port, home.folder
    address, environment = f"127.0.0.1:{port}", environment_of(home)
    secret = ["--superexec-auth-secret-file", str(home.secret_file)]
    superlink = [sys.executable, "-P", "-m", "server.coordinator.superlink"]  # -P: the folder it runs in holds no code
    superlink += ["--host", "127.0.0.1", "--port", str(port), "--enable-supernode-auth"]
    superlink += ["--ssl-ca-certfile", str(home.authority_file)]
    superlink += ["--ssl-certfile", str(folder / "tls" / "server.crt")]
    superlink += ["--ssl-keyfile", str(folder / "tls" / "server.key")]
    superlink += ["--isolation", "process", *secret, "--disable-runtime-dependency-installation"]
    if home.settings.storage.database == "disk":
        superlink += ["--database", str(folder / "state" / "superlink.db")]
    executor = ["flower-superexec", "--runtime-api-address", address, *secret]
    executor += ["--root-certificates", str(home.authority_file)]
    nginx = ["nginx", "-e", str(folder / "logs" / "proxy-error.log"), "-p", str(folder / "nginx")]
    nginx += ["-c", str(folder / "nginx" / "nginx.conf")]

    def program(name: str, command: list[str], env: Mapping[str, str], **options: Any) -> Program:
        return Program(name, command, env, folder / "state", folder / "logs" / f"{name}.log", **options)

    def settle() -> None:
        sites.register(home, environment)

    more = [folder / "logs" / name for name in proxy.LOGS]
    return [
        program("superlink", superlink, environment, ready=partial(port_answers, port), settle=settle),
        program("executor", executor, environment),
        # Whoever was revoked while the SuperLink was down is taken out before anybody can reach it.
        program("proxy", nginx, environment, ready=partial(_proxy_answers, home), behind="superlink", more_logs=more),
    ]


def up(home: Home, tell: Journal) -> None:
    """Run until SIGTERM or SIGINT.

    Raises:
        DeploymentError: a port is taken, a certificate has expired, or a program did not start.
        DependencyError: nginx or setpriv is missing.
    """
    _refuse_unfit(home)
    proxy.write_configuration(home)
    prepare_connection(home)
    loopback = home.settings.loopback

    def started() -> dict[str, object]:
        sites.register(home, environment_of(home))  # for what was decided before the commands could see that we are up
        approved = [site.name for site in sites.sites(home) if site.status == sites.APPROVED]
        return {"approved": approved, "public_port": home.settings.public.port}

    watching = Watching(loopback.health_port, loopback.metrics_port, partial(_gauges, home))
    run_until_told(home.folder, programs(home), tell, watching, started)


def prepare_connection(home: Home) -> None:
    """Flower's own connection file, for its command line."""
    write_connection(home.folder / "flower", home.settings.loopback.superlink_port, authority=home.authority_file)


def _refuse_unfit(home: Home) -> None:
    import datetime
    import shutil

    if shutil.which("nginx") is None:
        raise DependencyError("nginx is not installed", remedy="Install it: apt-get install nginx-light")
    end = expires(home.inside("tls", "server.crt").read_bytes())
    if end < datetime.datetime.now(datetime.UTC):
        raise DeploymentError(f"the server certificate ended on {end:%Y-%m-%d}", remedy="fedembed coordinator renew")
    loopback = home.settings.loopback
    refuse_taken(
        "coordinator",
        (loopback.superlink_port, loopback.health_port, loopback.metrics_port),
        others=[home.settings.public.port] if _proxy_answers(home) else (),
    )


def _proxy_answers(home: Home) -> bool:
    return port_answers(home.settings.public.port, home.settings.public.own_address)


def _gauges(home: Home) -> Iterator[Gauge]:
    """Facts about sites and runs; nothing about anybody's data."""
    yield Gauge("fedembed_sites", "sites by status", Counter(site.status for site in sites.sites(home)), "status")
    rounds = {run.name: float(run.rounds_done) for run in runs.runs(home)}
    yield Gauge("fedembed_rounds_done", "rounds that are on disk", rounds, "run")
    end = expires(home.inside("tls", "server.crt").read_bytes()).timestamp()
    yield Gauge("fedembed_certificate_expires_seconds", "Unix time at which the server certificate ends", {"": end})
    database = home.inside("state", "superlink.db")
    size = float(database.stat().st_size) if database.exists() else 0.0
    yield Gauge("fedembed_database_bytes", "size of Flower's database", {"": size})
