"""Errors, paging, settings, logs and what else every service shares."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field

from conductor.errors.v1.reason_pb2 import Reason
from services.execution.convert import streams as convert
from services.execution.settings import ExecutionSettings
from services.kit import call, ids, paging
from services.kit.cache import VersionedBytes
from services.kit.errors import (
    DomainError,
    Resource,
    Violation,
    code_of,
    invalid,
    reason_name,
    reason_value,
    to_status,
)
from services.kit.logs import CallLog, JsonFormatter
from services.kit.settings import Settings, SettingsError, load
from services.kit.tasks import ended

LONG = "𝄞" * 10_000


def details(status: status_pb2.Status) -> dict[str, Any]:
    found: dict[str, Any] = {}
    packed: any_pb2.Any
    for packed in status.details:
        name = packed.TypeName().rpartition(".")[2]
        detail = getattr(error_details_pb2, name)()
        packed.Unpack(detail)
        found.setdefault(name, []).append(detail)
    return found


class TestErrors:
    @pytest.mark.parametrize("reason", [r for r in Reason.values() if r])
    def test_every_reason_has_a_code_and_a_name_that_is_read_back(
        self, reason: Reason.ValueType
    ) -> None:
        assert code_of(reason) not in {grpc.StatusCode.OK, grpc.StatusCode.UNKNOWN}
        assert reason_value(reason_name(reason)) == reason

    def test_an_error_becomes_a_status_with_every_detail(self) -> None:
        error = DomainError(
            Reason.REASON_STORE_UNAVAILABLE,
            "The store is away.",
            violations=[Violation("a.b", "must be c")],
            resources=[Resource("execution", "exec_1", "it")],
            retry_after=1.5,
            metadata={"k": "v"},
        )
        status = to_status(error)
        assert (status.code, status.message) == (14, "The store is away.")
        found = details(status)
        assert set(found) == {"ErrorInfo", "BadRequest", "ResourceInfo", "RetryInfo"}
        assert found["ErrorInfo"][0].reason == "STORE_UNAVAILABLE"
        assert found["ErrorInfo"][0].domain == "conductor"
        assert found["ErrorInfo"][0].metadata == {"k": "v"}
        assert found["BadRequest"][0].field_violations[0].field == "a.b"
        assert found["ResourceInfo"][0].resource_name == "exec_1"
        assert found["RetryInfo"][0].retry_delay.ToMilliseconds() == 1500

    @pytest.mark.parametrize("text", ["x" * 10_000, LONG, '"\n' * 5000])
    @pytest.mark.parametrize("count", [1, 20])
    def test_a_status_fits_in_four_kibibytes_whatever_it_is_about(
        self, text: str, count: int
    ) -> None:
        error = DomainError(
            Reason.REASON_INVALID_REQUEST,
            text,
            violations=[Violation(text, text)] * count,
            resources=[Resource(text, text, text)] * count,
            retry_after=1,
            metadata={"trace_id": "a" * 32},
        )
        status = to_status(error)
        assert status.ByteSize() <= 4096
        found = details(status)
        assert found["ErrorInfo"][0].reason == "INVALID_REQUEST"
        assert found["RetryInfo"][0].retry_delay.seconds == 1
        violation = found["BadRequest"][0].field_violations[0]
        assert violation.field.startswith(text[:20])
        assert violation.field.endswith("…")
        assert len(status.message.encode()) <= 512

    def test_a_wrong_field_is_named_in_the_sentence_and_in_the_details(self) -> None:
        error = invalid("page_size", "must not be negative")
        assert str(error) == "page_size: must not be negative"
        assert error.violations == (Violation("page_size", "must not be negative"),)


@dataclass
class Request:
    page_size: int = 0
    page_token: str = ""


@dataclass(frozen=True)
class Row:
    create_time: int
    id: str
    name: str


class TestPaging:
    @pytest.mark.parametrize(
        ("asked", "given_"), [(0, 50), (1, 1), (50, 50), (200, 200), (201, 200), (2**31 - 1, 200)]
    )
    def test_a_page_size_is_coerced(self, asked: int, given_: int) -> None:
        assert paging.page_size(asked) == given_

    @given(
        st.tuples(
            st.integers(0, 2**63 - 1) | st.text(st.characters(codec="utf-8")),
            st.text(st.characters(codec="utf-8")),
        ),
        st.lists(st.none() | st.text(st.characters(codec="utf-8")) | st.integers(0, 2**53)),
    )
    @settings(deadline=None, database=None)
    def test_a_token_is_read_back_for_the_filters_it_was_made_for(
        self, position: paging.Position, filters: list[Any]
    ) -> None:
        kind = type(position[0])
        token = paging.encode_token(position, filters)
        assert paging.decode_token(token, filters, kind) == position
        assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
        with pytest.raises(DomainError):
            paging.decode_token(token, [*filters, "more"], kind)
        with pytest.raises(DomainError):
            paging.decode_token(token, filters, str if kind is int else int)

    def test_no_token_is_the_first_page(self) -> None:
        assert paging.decode_token("", ["a"]) is None

    def test_the_next_page_begins_after_the_last_row_that_is_shown(self) -> None:
        rows = [Row(7, "a", "Ä"), Row(8, "b", "B"), Row(9, "c", "C")]
        first = paging.page(Request(page_size=2), ["mine"])
        token = first.next_token(rows, 2)
        assert paging.page(Request(page_token=token), ["mine"]).after == (8, "b")
        assert first.next_token(rows, 3) == ""

    def test_a_list_in_another_order_goes_on_at_its_own_place(self) -> None:
        rows = [Row(7, "a", "Ä"), Row(8, "b", "B")]
        first = paging.page(Request(page_size=1), ["by name"], str)
        token = first.next_token(rows, 1, lambda row: (row.name, row.id))
        assert paging.page(Request(page_token=token), ["by name"], str).after == ("Ä", "a")
        for filters, kind in ((["by colour"], str), (["by name"], int)):
            with pytest.raises(DomainError):
                paging.page(Request(page_token=token), filters, kind)

    @pytest.mark.parametrize(
        "token",
        [
            "garbage",
            "a",
            "====",
            "é",
            "\u0000",
            "W10",  # []
            "bnVsbA",  # null
            "WzEsMiwzXQ",  # [1,2,3]
            "eyJhIjoxfQ",  # {"a":1}
            paging.encode_token((1, "a"), ["other"]),
            paging.encode_token((1, "a"), ["mine"])[:-3],
            paging.encode_token((2**63, "a"), ["mine"]),
            paging.encode_token((-1, "a"), ["mine"]),
            paging.encode_token((True, "a"), ["mine"]),
            paging.encode_token(("1", "a"), ["mine"]),
        ],
    )
    def test_any_other_token_is_refused(self, token: str) -> None:
        with pytest.raises(DomainError) as caught:
            paging.decode_token(token, ["mine"])
        assert caught.value.reason == Reason.REASON_PAGE_TOKEN_INVALID
        assert [one.field for one in caught.value.violations] == ["page_token"]


class TestCursor:
    @pytest.mark.parametrize(
        ("header", "expected"),
        [("", 7), ("  ", 7), ("0", 0), ("42", 42), (" 42 ", 42), ("4294967295", 2**32 - 1)],
    )
    def test_the_header_wins_over_the_query(self, header: str, expected: int) -> None:
        assert convert.cursor(7, {"last-event-id": header}) == expected
        assert convert.cursor(7, {}) == 7

    @pytest.mark.parametrize(
        "header",
        [
            "x",
            "-1",
            "1.5",
            "+1",
            "1e3",
            "٣",
            "1 2",
            "4294967296",
            "9" * 400,
            "0" * 5000,
            "²",
            "1\n2",
        ],
    )
    def test_anything_else_than_the_id_of_an_event_is_refused(self, header: str) -> None:
        with pytest.raises(DomainError) as caught:
            convert.cursor(0, {"last-event-id": header})
        assert caught.value.reason == Reason.REASON_INVALID_REQUEST
        assert [one.field for one in caught.value.violations] == ["Last-Event-ID"]


class Some(Settings):
    """Settings as a service has them."""

    some_number: int = Field(default=1, ge=0)
    some_name: str = "x"
    some_table: dict[str, int] = Field(default_factory=dict)


class TestSettings:
    @pytest.fixture(autouse=True)
    def _elsewhere(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.delenv("CONDUCTOR_CONFIG", raising=False)
        monkeypatch.delenv("CONDUCTOR_SOME_NUMBER", raising=False)

    def test_without_file_and_environment_there_are_defaults(self) -> None:
        assert load(Some).some_number == 1

    def test_the_environment_wins_over_the_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "config.yaml").write_text("some_number: 2\nsome_name: file\nunknown: 1\n")
        assert (load(Some).some_number, load(Some).some_name) == (2, "file")
        monkeypatch.setenv("CONDUCTOR_SOME_NUMBER", "3")
        assert (load(Some).some_number, load(Some).some_name) == (3, "file")

    def test_another_file_can_be_named(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "other.yaml").write_text("some_table: {a: 1}\n")
        monkeypatch.setenv("CONDUCTOR_CONFIG", "other.yaml")
        assert load(Some).some_table == {"a": 1}

    def test_a_named_file_that_is_not_there_is_an_error(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("CONDUCTOR_CONFIG", "missing.yaml")
        with pytest.raises(SettingsError, match=r"CONDUCTOR_CONFIG names missing\.yaml"):
            load(Some)

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("SOME_NUMBER", "many"),
            ("SOME_NUMBER", "-1"),
            ("SOME_TABLE", "no json"),
            ("SOME_TABLE", '{"a": "b"}'),
            ("LOG_LEVEL", "LOUD"),
            ("SHUTDOWN_SECONDS", "1000"),
        ],
    )
    def test_a_wrong_value_is_a_sentence_that_names_its_setting(
        self, name: str, value: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"CONDUCTOR_{name}", value)
        with pytest.raises(SettingsError, match=f"(?i){name}"):
            load(Some)

    @pytest.mark.parametrize(
        "content", [b"a: [", b"- a\n- b\n", b"just text", b"\xff\xfe\x00", b"a: \t b"]
    )
    def test_a_file_that_cannot_be_read_is_a_sentence(self, tmp_path: Path, content: bytes) -> None:
        (tmp_path / "config.yaml").write_bytes(content)
        with pytest.raises(SettingsError):
            load(Some)

    def test_an_empty_file_is_no_settings(self, tmp_path: Path) -> None:
        (tmp_path / "config.yaml").write_text("")
        assert load(Some).some_number == 1

    @pytest.mark.parametrize("where", ["environment", "file"])
    def test_a_misspelled_setting_of_a_service_is_refused_with_what_was_meant(
        self, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if where == "file":
            (tmp_path / "config.yaml").write_text("execution_concurency: 5\n")
        else:
            monkeypatch.setenv("CONDUCTOR_EXECUTION_CONCURENCY", "5")
        with pytest.raises(SettingsError, match="did you mean execution_concurrency"):
            load(ExecutionSettings)

    @pytest.mark.parametrize(
        ("name", "value", "sentence"),
        [
            ("PROVIDERS", '{"mine": {}}', "mine is no provider that is known"),
            ("PROVIDERS", '{"mock": {}}', "no name for a provider"),
            ("PROVIDERS", '{"x": {"base_url": "http://u:p@x/v1"}}', "x.base_url: .*without user"),
            ("PROVIDERS", '{"x": {"base_url": "http://x/v1?key=1"}}', "without user"),
            ("PROVIDERS", '{"openai": {"headers": {"X": "a\\nb"}}}', "cannot be sent"),
            ("PROVIDERS", '{"openai": {"api_key": "a\\nb"}}', "cannot be sent"),
            ("PROVIDERS", '{"openai": {"key_variable": "no such"}}', "key_variable"),
            ("PROVIDERS", "{", "has to be JSON"),
            ("FALLBACKS", "[{}]", "has to name"),
            ("COST_USD", "1e-12", "1E-9"),
            ("TIMEOUT_CEILING_SECONDS", "1", "must be at most"),
            ("ORGS", '{"a": {"weight": 0}}', "a.weight"),
        ],
    )
    def test_a_setting_of_models_that_cannot_work_is_refused_with_its_name(
        self, name: str, value: str, sentence: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv(f"CONDUCTOR_EXECUTION_{name}", value)
        with pytest.raises(SettingsError, match=sentence):
            load(ExecutionSettings)

    def test_the_environments_key_comes_before_the_files(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "config.yaml").write_text(
            "execution_providers: {openai: {api_key: ' file '}, ollama: }\n"
        )
        providers = load(ExecutionSettings).execution_providers
        monkeypatch.delenv("OPENAI_API_KEY", raising=False)
        assert providers["openai"].key == "file"
        monkeypatch.setenv("OPENAI_API_KEY", "environment")
        assert providers["openai"].key == "environment"
        assert providers["ollama"].is_keyless

    def test_settings_do_not_change(self) -> None:
        loaded = load(ExecutionSettings)
        with pytest.raises(ValueError, match="frozen"):
            loaded.execution_concurrency = 7


class TestLogs:
    def record(self, message: str, *args: Any, **extra: Any) -> logging.LogRecord:
        record = logging.LogRecord("a.b", logging.WARNING, "f", 1, message, args, None)
        record.__dict__.update(extra)
        return record

    def test_a_record_is_one_line_of_json(self) -> None:
        line = JsonFormatter().format(self.record("two\n%s", "lines", facts={"port": 1}))
        assert "\n" not in line
        found = json.loads(line)
        assert found["message"] == "two\nlines"
        assert (found["level"], found["logger"], found["port"]) == ("WARNING", "a.b", 1)

    def test_a_record_of_a_call_carries_its_ids(self) -> None:
        trace = "0af7651916cd43dd8448eb211c80319c"
        served = call.begin(
            "/m", {"x-request-id": "r", "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
        )
        found = json.loads(JsonFormatter().format(self.record("x")))
        assert (found["call_id"], found["trace_id"]) == ("r", trace)
        assert served.trace_id == trace

    @pytest.mark.parametrize("header", ["", "garbage", "00-xyz-abc-01", "00-" + "g" * 32 + "-1-01"])
    def test_a_call_without_a_trace_gets_one(self, header: str) -> None:
        served = call.begin("/m", {"traceparent": header})
        assert len(served.trace_id) == 32
        assert served.trace_id != call.begin("/m", {}).trace_id

    def test_at_debug_every_call_is_written_and_all_together(self) -> None:
        logging.getLogger("call").setLevel(logging.DEBUG)
        stream = io.StringIO()
        log = CallLog(stream)
        served = call.begin("/m", {"x-request-id": "π"})
        log.write(served, "OK", 0.0015)
        log.write(served, "INTERNAL", 0.001)
        assert stream.getvalue() == ""
        log.flush()
        log.flush()
        lines = [json.loads(line) for line in stream.getvalue().splitlines()]
        assert [line["code"] for line in lines] == ["OK", "INTERNAL"]
        assert lines[0]["ms"] == 1.5
        assert lines[0]["call_id"] == "π"

    def test_at_info_a_call_that_went_well_is_left_to_the_access_log(self) -> None:
        logging.getLogger("call").setLevel(logging.INFO)
        stream = io.StringIO()
        log = CallLog(stream)
        log.write(call.begin("/m", {}), "OK", 0.001)
        log.write(call.begin("/m", {}), "NOT_FOUND", 0.001)
        log.flush()
        assert [json.loads(line)["code"] for line in stream.getvalue().splitlines()] == [
            "NOT_FOUND"
        ]

    def test_a_closed_stream_loses_lines_and_nothing_else(self) -> None:
        logging.getLogger("call").setLevel(logging.INFO)
        stream = io.StringIO()
        log = CallLog(stream)
        served = call.begin("/m", {})
        stream.close()
        for _ in range(1000):
            log.write(served, "INTERNAL", 0.001)
        log.flush()

    def test_a_full_disk_loses_lines_and_nothing_else(self) -> None:
        logging.getLogger("call").setLevel(logging.INFO)

        class Full(io.StringIO):
            full = True

            def write(self, text: str, /) -> int:
                if self.full:
                    raise OSError(28, "No space left on device")
                return super().write(text)

        stream = Full()
        log = CallLog(stream)
        served = call.begin("/m", {})
        log.write(served, "INTERNAL", 0.001)
        log.flush()
        stream.full = False
        log.write(served, "ABORTED", 0.001)
        log.flush()
        assert [json.loads(line)["code"] for line in stream.getvalue().splitlines()] == ["ABORTED"]


class TestCache:
    def test_only_the_version_asked_for_is_found(self) -> None:
        cache = VersionedBytes(100)
        cache.put(("o", "a"), 1, b"one")
        assert cache.get(("o", "a"), 1) == b"one"
        assert cache.get(("o", "a"), 2) is None
        assert cache.get(("p", "a"), 1) is None
        cache.put(("o", "a"), 2, b"two")
        assert cache.get(("o", "a"), 1) is None
        assert cache.get(("o", "a"), 2) == b"two"

    def test_what_was_not_used_for_longest_makes_room(self) -> None:
        cache = VersionedBytes(10)
        for name in "abc":
            cache.put(("o", name), 1, b"123")
        assert cache.get(("o", "a"), 1)
        cache.put(("o", "d"), 1, b"123")
        assert [bool(cache.get(("o", name), 1)) for name in "abcd"] == [True, False, True, True]

    def test_what_does_not_fit_is_not_kept_and_does_no_harm(self) -> None:
        cache = VersionedBytes(10)
        cache.put(("o", "a"), 1, b"x" * 11)
        assert cache.get(("o", "a"), 1) is None
        for version in range(1, 100):
            cache.put(("o", "b"), version, b"x" * 10)
        assert cache.get(("o", "b"), 99) == b"x" * 10


def test_ids_sort_by_creation_and_are_safe_everywhere() -> None:
    made = [ids.new_id("exec") for _ in range(1000)]
    assert made == sorted(made)
    assert len(set(made)) == 1000
    assert all(one.isascii() and one.replace("_", "").isalnum() and len(one) <= 64 for one in made)


async def test_a_task_is_over_when_it_was_ended(caplog: pytest.LogCaptureFixture) -> None:
    async def stubborn() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RuntimeError("stubborn") from None

    task = asyncio.create_task(stubborn(), name="mule")
    await asyncio.sleep(0)
    await ended(task)
    assert task.done()
    assert "mule" in caplog.text
