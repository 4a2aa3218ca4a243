"""Health over gRPC (grpc.health.v1) and metrics for Prometheus, both on loopback alone; public facts, no data."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent import futures
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
POLL_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Gauge:
    """A metric: its name, what it means, and a value for each value of ``label`` (one, named "", without a label)."""

    name: str
    help: str
    values: Mapping[str, float]
    label: str = ""


Measure = Callable[[], Iterable[Gauge]]


@contextmanager
def health_service(port: int, alive: Callable[[], Mapping[str, bool]]) -> Iterator[None]:
    """Answer ``grpc.health.v1.Health`` on loopback: one service a program, and the empty name for all together.

    Raises:
        OSError: the port is taken.
    """
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    class Answers(health_pb2_grpc.HealthServicer):
        """Looks when it is asked; ``Watch`` is left to clients that poll."""

        def Check(self, request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> object:
            found = alive()
            if request.service and request.service not in found:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such program")
            fine = found[request.service] if request.service else all(found.values())
            status = health_pb2.HealthCheckResponse
            return status(status=status.SERVING if fine else status.NOT_SERVING)

    alone = [
        ("grpc.so_reuseport", 0)
    ]  # else a second service on the port would go unnoticed, and answer every other time
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=2), options=alone)
    health_pb2_grpc.add_HealthServicer_to_server(Answers(), server)
    try:
        bound = server.add_insecure_port(f"{LOOPBACK}:{port}")
    except RuntimeError:
        bound = 0
    if not bound:
        raise OSError(f"port {port} on loopback is taken")
    server.start()
    try:
        yield
    finally:
        server.stop(grace=1).wait()


@contextmanager
def metrics_page(port: int, measure: Measure) -> Iterator[None]:
    """Serve ``measure()`` as a Prometheus page at ``http://127.0.0.1:port/metrics``."""
    from prometheus_client import CollectorRegistry, start_http_server
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector

    class Page(Collector):
        def collect(self) -> Iterator[GaugeMetricFamily]:
            for gauge in measure():
                family = GaugeMetricFamily(gauge.name, gauge.help, labels=[gauge.label] if gauge.label else [])
                for key, value in gauge.values.items():
                    family.add_metric([key] if gauge.label else [], value)
                yield family

    registry = CollectorRegistry()
    registry.register(Page())
    server, thread = start_http_server(port, addr=LOOPBACK, registry=registry)
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def watched(
    health_port: int, metrics_port: int, alive: Callable[[], Mapping[str, bool]], measure: Measure
) -> AbstractContextManager[None]:
    """Both services while the block lasts."""

    @contextmanager
    def both() -> Iterator[None]:
        with health_service(health_port, alive), metrics_page(metrics_port, measure):
            yield

    return both()


def is_serving(port: int, program: str = "", *, timeout_s: float = 5.0) -> bool | None:
    """What the health service on loopback says; ``None`` where nobody answers."""
    import grpc
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with grpc.insecure_channel(f"{LOOPBACK}:{port}") as channel:
        try:
            asked = health_pb2.HealthCheckRequest(service=program)
            answer = health_pb2_grpc.HealthStub(channel).Check(asked, timeout=timeout_s)
        except grpc.RpcError:
            return None
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)
