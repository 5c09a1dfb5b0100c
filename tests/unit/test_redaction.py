"""What is kept of requests: never a secret, and never much."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FieldOptions
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from google.protobuf.wrappers_pb2 import BytesValue, Int64Value
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from conductor.audit.v1.audit_record_pb2 import AuditRecord
from conductor.auth.v1.key_pb2 import Key
from conductor.execution.v1.execution_service_pb2 import StartExecutionRequest
from conductor.execution.v1.model_pb2 import ModelChoice
from conductor.gateway.v1.gateway_service_pb2 import StreamJobRequest
from services.kit.redaction import (
    DEEPEST,
    LONGEST_LIST,
    LONGEST_TEXT,
    REDACTED,
    is_secret,
    redacted,
    redacted_text,
)

PLANTED = "hunter2hunter2"
SECRET_NAMES = [
    *("password", "passwd", "PASSWORD", "PassWord", "db-password", "password2", "userpassword"),
    *("secret", "client_secret", "clientSecret", "token", "access-token", "accesstoken"),
    *("refresh_tokens", "api_key", "apikey", "API-KEY", "X-Api-Key", "apiKeys", "Authorization"),
    *("proxy-authorization", "credential", "awsCredentials", "private_key", "privateKey"),
    *("cookie", "Set-Cookie", "my.secret.thing", "token/42"),
]
OPEN_NAMES = [
    *("max_output_tokens", "input_tokens", "outputTokens", "tokenizer", "secretary", "author"),
    *("key", "key_id", "monkey", "path", "ключ", "", "42"),
]


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_name_that_tells_of_a_secret_is_known_however_it_is_written(name: str) -> None:
    assert is_secret(name)
    assert is_secret(f"{'x-' * 100}{name}")
    assert is_secret(f"{'x-' * 1_000}{name}")


@pytest.mark.parametrize("name", OPEN_NAMES)
def test_a_name_that_only_looks_like_a_secrets_is_not_one(name: str) -> None:
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("my key is cmk_01jd_abc-DEF, really", "my key is [redacted], really"),
        ("Authorization: Bearer abc.def", "[redacted]"),
        ("say bearer ABC\nnow", "say [redacted]\nnow"),
        ("sk-proj-0123456789 and sk-ant-9876543210", "[redacted] and [redacted]"),
        (
            "AKIA0123456789ABCDEF or AIza0123456789-0123456789_0123456789",
            "[redacted] or [redacted]",
        ),
        ("ghp_0123456789abcdef0123, gsk_0123456789abcdef0123", "[redacted], [redacted]"),
        ("xoxb-0123-4567-abc sk_live_0123456789", "[redacted] [redacted]"),
        ("pwd=abc; aws_secret_access_key = a/b", "[redacted]; aws_secret_[redacted]"),
        ("GET /stream?token=abc&x=1", "GET /stream?[redacted]&x=1"),
        ('{"password": "two words", "a": 1}', '{"[redacted], "a": 1}'),
        (r"{\"api_key\": \"abc\"}", r"{\"[redacted]}"),
        ("x-api-key:abc", "x-[redacted]"),
        ("eyJhbGciOiJub25l.eyJzdWIiOiJ4.sig", "[redacted]"),
        ("-----BEGIN RSA PRIVATE KEY-----\nabc", "[redacted]"),
        ("mongodb://app:hunter2@db/x http://a:80/@", "mongodb[redacted]db/x http://a:80/@"),
        ("İstanbul cmk_abc", "İstanbul [redacted]"),
        ("a task-force at risk-free, 5 tokens, π", "a task-force at risk-free, 5 tokens, π"),
        (
            "in Asia, github_patterns, gsk_x, 5 tokens, π",
            "in Asia, github_patterns, gsk_x, 5 tokens, π",
        ),
    ],
)
def test_what_looks_like_a_secret_in_a_text_is_taken_out(text: str, shown: str) -> None:
    assert redacted_text(text) == shown


def test_a_text_is_cut_and_says_how_long_it_was() -> None:
    assert redacted_text("é" * LONGEST_TEXT) == "é" * LONGEST_TEXT
    assert redacted_text("𝄞" * 1000) == "𝄞" * LONGEST_TEXT + "… (1000 characters)"


@given(st.integers(0, 700), st.sampled_from(["cmk_{}", "Bearer {}", "sk-{}", "password={}"]))
def test_a_secret_at_the_cut_does_not_survive_in_part(before: int, form: str) -> None:
    shown = redacted_text("x " * (before // 2) + " " + form.format(PLANTED * 30))
    assert PLANTED[:2] not in shown


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=20,
)
SECRETS = st.one_of(
    st.sampled_from([f"cmk_{PLANTED}", f"a Bearer {PLANTED} b", f"(sk-{PLANTED})"]),
    st.sampled_from([f"password: {PLANTED}", f'{{"token":"{PLANTED}"}}']),
    st.builds(lambda name, value: {name: value}, st.sampled_from(SECRET_NAMES), st.just(PLANTED)),
    st.builds(
        lambda name, path, inner: {name: {path: [inner, PLANTED]}},
        st.sampled_from(SECRET_NAMES),
        st.text(max_size=5),
        JSON,
    ),
    st.just({f"cmk_{PLANTED}": 1}),
)
PLANTED_JSON = st.recursive(
    SECRETS,
    lambda inner: st.one_of(
        st.builds(
            lambda before, one, after: [*before, one, *after],
            *[st.lists(JSON, max_size=3), inner, st.lists(JSON, max_size=2)],
        ),
        st.builds(
            lambda others, name, one: {**others, name: one},
            st.dictionaries(st.text(max_size=8), JSON, max_size=3),
            st.text(max_size=8),
            inner,
        ),
    ),
    max_leaves=6,
)


def in_struct(value: Any) -> AuditRecord:
    record = AuditRecord()
    record.request.update({"value": value})
    return record


@settings(max_examples=50, deadline=None)
@given(PLANTED_JSON)
def test_no_secret_at_any_depth_survives(value: Any) -> None:
    assert PLANTED in json.dumps(value)
    assert PLANTED not in json.dumps(redacted(in_struct(value)))


@settings(max_examples=50, deadline=None)
@given(JSON)
def test_what_is_short_and_no_secret_is_kept_as_it_is(value: Any) -> None:
    assume(len(json.dumps(value)) < 500)
    assume(_levels(value) < DEEPEST - 1)
    assume(not any(map(is_secret, _keys(value))))
    assert redacted(in_struct(value)) == {"request": {"value": value}}


def _levels(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(map(_levels, inner), default=0) if isinstance(inner, list) else 0


def _keys(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [*value, *(key for one in value.values() for key in _keys(one))]
    return [key for one in value for key in _keys(one)] if isinstance(value, list) else []


def test_a_request_is_printed_with_the_names_of_its_proto() -> None:
    request = StartExecutionRequest(
        input="Grüße, 世界 🌍",
        metadata={"a": "b", "api-key": PLANTED, "input_tokens": "5", f"cmk_{PLANTED}": ""},
        timeout=Duration(seconds=5),
        priority=1,
        max_cost_usd=0.5,
        max_output_tokens=7,
        fallbacks=[ModelChoice(model="m")],
    )
    assert redacted(request) == {
        "input": "Grüße, 世界 🌍",
        "metadata": {"a": "b", "api-key": REDACTED, "input_tokens": "5", REDACTED: ""},
        "timeout": "5s",
        "priority": 1,
        "max_cost_usd": 0.5,
        "max_output_tokens": 7,
        "fallbacks": [{"model": "m"}],
    }


def test_a_field_that_its_proto_hides_is_hidden() -> None:
    assert redacted(StreamJobRequest(job_id="j", token="t"))["token"] == REDACTED
    key = Key(name="ci", secret="t", create_time=Timestamp(seconds=1), scopes=[1, 77])  # type: ignore[list-item]  # one that is not known
    assert redacted(key) == {
        "name": "ci",
        "scopes": ["SCOPE_READ", 77],
        "create_time": "1970-01-01T00:00:01Z",
        "secret": REDACTED,
    }


def test_every_type_of_field_has_a_form_that_json_has() -> None:
    assert redacted(Int64Value(value=2**60)) == {"value": str(2**60)}
    assert redacted(BytesValue(value=b"\xff\x00")) == {"value": "(2 bytes)"}
    assert redacted(FieldDescriptorProto(type=9, options=FieldOptions(deprecated=True))) == {  # type: ignore[arg-type]  # an enum by number
        "type": "TYPE_STRING",
        "options": {"deprecated": True},
    }
    assert redacted(FieldMask(paths=["a.b"])) == ["a.b"]
    assert redacted(Value(number_value=float("nan"))) == "nan"
    assert redacted(Value()) is None
    assert redacted(Timestamp(seconds=-(2**62))) == f"{-(2**62)}s, 0ns"
    packed = AnyMessage()
    packed.Pack(Key(secret=PLANTED))
    assert redacted(packed)["value"] == f"({len(PLANTED) + 2} bytes)"


def test_long_lists_and_objects_say_what_is_missing() -> None:
    shown = redacted(in_struct({"l": [1] * 100, "o": {str(n): n for n in range(100)}}))
    value = shown["request"]["value"]
    assert value["l"] == [1] * LONGEST_LIST + ["… (68 more)"]
    assert len(value["o"]) == LONGEST_LIST + 1
    assert value["o"]["…"] == "(68 more)"


def nested(levels: int, inner: Any) -> Any:
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.mark.parametrize(
    "value",
    [
        [["x" * 1000] * 100] * 30,
        [[[[]] * 32] * 32] * 32,
        [[{}] * 100] * 100,
        {str(n): {"π" * 100: "\0" * 500} for n in range(100)},
        nested(30, "deep"),
    ],
    ids=["texts", "empty lists", "empty objects", "keys", "levels"],
)
def test_a_record_stays_small_and_readable_whatever_was_asked(value: Any) -> None:
    shown = redacted(in_struct(value))
    assert len(json.dumps(shown, ensure_ascii=False)) < 30_000
    record = AuditRecord()
    record.request.update(shown)
    assert AuditRecord.FromString(record.SerializeToString()) == record


def test_levels_that_are_too_deep_are_left_out() -> None:
    shown = json.dumps(redacted(in_struct(nested(30, "deep"))), ensure_ascii=False)
    assert "deep" not in shown
    assert shown.count("[") <= DEEPEST
    struct = Struct()
    struct.update({"a": nested(3, "not deep")})
    assert redacted(struct) == {"a": [[["not deep"]]]}
