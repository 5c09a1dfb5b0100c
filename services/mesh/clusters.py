"""Where Envoy sends calls to: the processes of each service, and what else it talks to."""

from __future__ import annotations

import ipaddress
import os
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias
from urllib.parse import urlsplit

from services.mesh.errors import CannotStart

Config: TypeAlias = dict[str, Any]
Address: TypeAlias = tuple[str, int]
Endpoints: TypeAlias = Mapping[str, Sequence[Address]]

# With larger windows Envoy queues more for a paused reader than the transcoder lets through, and
# cuts the stream.
STREAM_WINDOW = 64 * 1024
CONNECTION_BUFFER = 256 * 1024
# Paused readers hold their stream's window out of the connection's, so it has room for all of them.
_UPSTREAM_CONNECTION_WINDOW = 1024 * 1024 * 1024
_MANY = 1_000_000

HEALTH_CHECK_SECONDS = 0.5
"""How often each process is asked; one that says NOT_SERVING gets no new calls from then on."""

_TRANSPORTS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3"
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where systems keep the authorities they trust, most common first."""


@dataclass(frozen=True, slots=True)
class Remote:
    """A server that is not ours, known by its URL."""

    host: str
    port: int
    tls: bool
    authorities: str = ""
    """The file of the authorities it is judged by; empty for those the system trusts."""

    @classmethod
    def from_url(cls, url: str, port: int = 0, authorities: str = "") -> Self:
        """Read host and port of a URL.

        Args:
            port: the port where the URL names none; else that of its scheme.

        Raises:
            ValueError: it is not http:// or https:// with a host.
        """
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError(f"{url!r} is not an address beginning with http:// or https://")
        tls = parts.scheme == "https"
        return cls(
            parts.hostname, parts.port or port or (443 if tls else 80), tls, authorities=authorities
        )


def address(host: str, port: int) -> Config:
    """An address as Envoy writes it."""
    return {"socket_address": {"address": host, "port_value": port}}


def grpc_cluster(name: str, addresses: Sequence[Address]) -> Config:
    """The processes of a service: those that say that they serve share the calls."""
    return {
        **_cluster(
            name,
            addresses,
            {
                "http2_protocol_options": {
                    "initial_stream_window_size": STREAM_WINDOW,
                    "initial_connection_window_size": _UPSTREAM_CONNECTION_WINDOW,
                    "connection_keepalive": {"interval": "30s", "timeout": "20s"},
                }
            },
        ),
        "common_lb_config": {
            # While none of them serves, all are tried: it may be over sooner than it is noticed.
            "healthy_panic_threshold": {"value": 1},
            # By itself Envoy gathers changes of health for a second.
            "update_merge_window": "0s",
        },
        "health_checks": [_health_check()],
        "outlier_detection": _outlier_detection(),
    }


def plain_cluster(name: str, server: Address) -> Config:
    """A plain HTTP/1.1 server."""
    return _cluster(name, [server], {"http_protocol_options": {}})


def collector_cluster(name: str, collector: Remote | None) -> Config:
    """The collector that spans are sent to; without one the cluster is there and empty."""
    return _remote_cluster(name, collector, {"http2_protocol_options": {}})


def web_cluster(name: str, server: Remote) -> Config:
    """A server of the web."""
    return _remote_cluster(name, server, {"http_protocol_options": {}})


def _remote_cluster(name: str, remote: Remote | None, protocol: Config) -> Config:
    cluster = _cluster(name, [(remote.host, remote.port)] if remote else [], protocol)
    if remote and remote.tls:
        cluster["transport_socket"] = _client_tls(remote)
    return cluster


def _client_tls(remote: Remote) -> Config:
    named = not _is_ip(remote.host)
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TRANSPORTS}.UpstreamTlsContext",
            **({"sni": remote.host} if named else {}),
            "common_tls_context": {
                "validation_context": {
                    "trusted_ca": {"filename": remote.authorities or _trusted_authorities()},
                    "match_typed_subject_alt_names": [
                        {
                            "san_type": "DNS" if named else "IP_ADDRESS",
                            "matcher": {"exact": remote.host},
                        }
                    ],
                }
            },
        },
    }


def _trusted_authorities() -> str:
    """The file of the authorities this system trusts; `SSL_CERT_FILE` names another."""
    known = ssl.get_default_verify_paths().cafile
    for path in (*([known] if known else []), *_BUNDLES):
        if os.access(path, os.R_OK):
            return path
    raise CannotStart(
        "No file with the certificate authorities of this system was found; name one with "
        "SSL_CERT_FILE."
    )


def server_tls(certificate: Path, key: Path) -> Config:
    """TLS for those who call us."""
    return {
        "name": "envoy.transport_sockets.tls",
        "typed_config": {
            "@type": f"{_TRANSPORTS}.DownstreamTlsContext",
            "common_tls_context": {
                "alpn_protocols": ["h2", "http/1.1"],
                "tls_params": {"tls_minimum_protocol_version": "TLSv1_2"},
                "tls_certificates": [
                    {
                        "certificate_chain": {"filename": str(certificate)},
                        "private_key": {"filename": str(key)},
                    }
                ],
            },
        },
    }


def _cluster(name: str, addresses: Sequence[Address], protocol: Config) -> Config:
    return {
        "name": name,
        "type": "STATIC" if all(_is_ip(host) for host, _ in addresses) else "STRICT_DNS",
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [
                {
                    "lb_endpoints": [
                        {"endpoint": {"address": address(host, port)}} for host, port in addresses
                    ]
                }
            ],
        },
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": _MANY,
                    "max_pending_requests": _MANY,
                    "max_requests": _MANY,
                    "max_retries": _MANY,
                }
            ]
        },
        "per_connection_buffer_limit_bytes": CONNECTION_BUFFER,
        "upstream_connection_options": {"tcp_keepalive": {}},
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": (
                    "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
                ),
                "explicit_http_config": protocol,
            }
        },
    }


def _health_check() -> Config:
    """Asks each process whether it serves.

    NOT_SERVING counts at once. Silence has to last: a process that is busy for a while is none that
    is gone.
    """
    each = f"{HEALTH_CHECK_SECONDS}s"
    return {
        "grpc_health_check": {},
        "timeout": "2s",
        "interval": each,
        "unhealthy_interval": each,
        "no_traffic_interval": each,
        "no_traffic_healthy_interval": each,
        "unhealthy_threshold": 3,
        "healthy_threshold": 1,
    }


def _outlier_detection() -> Config:
    """Leaves a process alone for a while that calls cannot reach, before its health is asked again.

    What a process answers is not judged: UNAVAILABLE of a store that is away says nothing of the
    process, and would be said by the others too.
    """
    return {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 5,
        "enforcing_consecutive_local_origin_failure": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
        "interval": "1s",
        "base_ejection_time": "1s",
        "max_ejection_time": "5s",
        "max_ejection_percent": 50,
    }


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
