"""The reverse proxy: an nginx configuration that publishes Flower's fleet interface over TLS, and nothing else."""

from __future__ import annotations

from common.errors import DeploymentError
from common.files import atomic_files
from server.coordinator.home import Home

LOGS = ("proxy-access.log", "proxy-error.log")

_TEMPLATE = """# Written by `fedembed coordinator up` from coordinator.toml; changes here are lost.
# Flower's SuperLink answers three interfaces on one port, and two of them ask for no password.
# Sites reach the fleet interface through this proxy; the others stay on loopback.
daemon off;
worker_processes auto;
pid "{folder}/nginx/nginx.pid";
error_log "{folder}/logs/proxy-error.log" warn;
events {{ worker_connections 1024; }}

http {{
    server_tokens off;
    log_format facts escape=json '{{"time":"$time_iso8601","address":"$remote_addr","path":"$uri",'
        '"status":$status,"bytes_in":$request_length,"bytes_out":$bytes_sent,"seconds":$request_time}}';
    access_log "{folder}/logs/proxy-access.log" facts;
    client_body_temp_path "{folder}/nginx/body";
    proxy_temp_path "{folder}/nginx/proxy";
    fastcgi_temp_path "{folder}/nginx/fastcgi";
    uwsgi_temp_path "{folder}/nginx/uwsgi";
    scgi_temp_path "{folder}/nginx/scgi";
    limit_req_zone $binary_remote_addr zone=sites:10m rate={rate}r/s;
    limit_req_status 503;  # Flower's node asks again after 503; 429 ends it, and what it was sent is lost
    limit_conn_zone $binary_remote_addr zone=open:10m;
    limit_conn_status 503;

    server {{
        listen {address} ssl;
        ssl_certificate "{folder}/tls/server.crt";
        ssl_certificate_key "{folder}/tls/server.key";
        ssl_protocols TLSv1.2 TLSv1.3;
        ssl_session_cache shared:tls:10m;
        client_max_body_size {body}m;
        client_body_timeout {timeout}s;
        client_header_timeout 10s;
        send_timeout {timeout}s;
        keepalive_timeout 65s;

        location ^~ /v1/fleet/ {{
            limit_req zone=sites burst={rate} nodelay;
            limit_conn open {rate};
            proxy_request_buffering off;  # updates pass through: none is spooled to the disk, in either direction
            proxy_max_temp_file_size 0;
            proxy_pass https://127.0.0.1:{superlink}/v1/fleet/;  # the path as nginx resolved it, not as it was sent
            proxy_ssl_trusted_certificate "{folder}/tls/ca.crt";
            proxy_ssl_verify on;
            proxy_ssl_name localhost;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host localhost;
            proxy_read_timeout {timeout}s;
            proxy_send_timeout {timeout}s;
        }}
        location = /v1/fleet {{ return 404; }}
        location / {{ return 404; }}
    }}
}}
"""


def write_configuration(home: Home) -> None:
    """Write ``nginx/nginx.conf``.

    Raises:
        DeploymentError: the folder's name has a character that nginx reads as something else.
    """
    public = home.settings.public
    if set(str(home.folder)) & set('"$\\{};\n'):
        raise DeploymentError(
            f"nginx cannot use the folder {home.folder}",
            remedy="Choose a --home without quotes, $, ;, braces, backslash.",
        )
    bind = f"[{public.bind}]" if ":" in public.bind else public.bind
    text = _TEMPLATE.format(
        folder=home.folder,
        address=f"{bind}:{public.port}",
        rate=public.requests_per_second,
        body=public.max_body_mib,
        timeout=public.timeout_s,
        superlink=home.settings.loopback.superlink_port,
    )
    with atomic_files(home.inside("nginx", "nginx.conf")) as (partial,):
        partial.write_text(text)
