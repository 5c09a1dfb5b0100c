"""What providers answer when they do not answer, in the words of the catalogue.

Both SDKs raise errors of the same shape, so that one table maps them. What a provider wrote goes
into the log, with its secrets taken out, and never into a message.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from services.execution.domain import ModelError
from services.kit.errors import Reason

_LOG = logging.getLogger(__name__)
_LOGGED_CHARACTERS = 500
_SHORTEST_SECRET = 6
_WORD = re.compile(r"[A-Za-z_]{1,40}")
# More is no number of tokens, and the sum of several has to fit 32 bits.
_LARGEST_COUNT = 10**9

_SECRET = re.compile(
    r"\b(?:bearer|basic)\s+[^\s\"',]+"
    r"|\b(?:sk|pk|rk|gsk|xai|api|key)[-_][\w*.…-]{4,}"
    r"|\bAIza[\w-]{8,}"
    r"|\beyJ[\w-]{8,}(?:\.[\w-]+)*",
    re.IGNORECASE,
)

# Names that say what is wrong whatever the status is.
_CERTAIN: Mapping[str, Reason.ValueType] = {
    "billing_error": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "billing_hard_limit_reached": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "billing_not_active": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "credit_balance_too_low": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "exceeded_current_quota_error": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "insufficient_balance": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "insufficient_credits": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "insufficient_quota": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "context_length_exceeded": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "context_window_exceeded": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "exceed_context_size_error": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "prompt_too_long": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "request_too_large": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "string_above_max_length": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "content_filter": Reason.REASON_MODEL_CONTENT_REFUSED,
    "content_policy_violation": Reason.REASON_MODEL_CONTENT_REFUSED,
    "data_inspection_failed": Reason.REASON_MODEL_CONTENT_REFUSED,
    "moderation_blocked": Reason.REASON_MODEL_CONTENT_REFUSED,
    "responsibleaipolicyviolation": Reason.REASON_MODEL_CONTENT_REFUSED,
    "invalid_api_key": Reason.REASON_MODEL_KEY_REJECTED,
    "engine_overloaded_error": Reason.REASON_MODEL_OVERLOADED,
    "overloaded": Reason.REASON_MODEL_OVERLOADED,
    "overloaded_error": Reason.REASON_MODEL_OVERLOADED,
}
# Names that say it where there is no status: a stream that had begun.
_LIKELY: Mapping[str, Reason.ValueType] = {
    "authentication_error": Reason.REASON_MODEL_KEY_REJECTED,
    "permission_error": Reason.REASON_MODEL_KEY_REJECTED,
    "rate_limit_error": Reason.REASON_MODEL_RATE_LIMITED,
    "rate_limit_exceeded": Reason.REASON_MODEL_RATE_LIMITED,
    "too_many_requests": Reason.REASON_MODEL_RATE_LIMITED,
    "service_unavailable": Reason.REASON_MODEL_OVERLOADED,
    "invalid_request_error": Reason.REASON_MODEL_CALL_REJECTED,
    "model_not_found": Reason.REASON_MODEL_CALL_REJECTED,
    "not_found_error": Reason.REASON_MODEL_CALL_REJECTED,
}
# What those write who have no name for it.
_PHRASES: Mapping[str, Reason.ValueType] = {
    "credit balance is too low": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "insufficient balance": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "insufficient credit": Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    "context length": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "context window": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "exceed context limit": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "maximum number of tokens allowed": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "input is too long": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "prompt is too long": Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    "content management policy": Reason.REASON_MODEL_CONTENT_REFUSED,
    "content policy": Reason.REASON_MODEL_CONTENT_REFUSED,
}
_PHRASED = frozenset({None, 400, 403, 422})
_STATUSES: Mapping[int, Reason.ValueType] = {
    401: Reason.REASON_MODEL_KEY_REJECTED,
    402: Reason.REASON_MODEL_QUOTA_EXHAUSTED,
    403: Reason.REASON_MODEL_KEY_REJECTED,
    408: Reason.REASON_MODEL_FAILED,
    409: Reason.REASON_MODEL_FAILED,
    413: Reason.REASON_MODEL_CONTEXT_TOO_LONG,
    429: Reason.REASON_MODEL_RATE_LIMITED,
    503: Reason.REASON_MODEL_OVERLOADED,
    529: Reason.REASON_MODEL_OVERLOADED,
}
_SENTENCES: Mapping[Reason.ValueType, str] = {
    Reason.REASON_MODEL_FAILED: "{provider} failed to run {model}{status}.",
    Reason.REASON_MODEL_KEY_REJECTED: "{provider} does not accept its key for {model}{status}.",
    Reason.REASON_MODEL_QUOTA_EXHAUSTED: (
        "The account at {provider} has no credit or quota left for {model}{status}."
    ),
    Reason.REASON_MODEL_RATE_LIMITED: "{provider} asks to call {model} less often{status}.",
    Reason.REASON_MODEL_CONTEXT_TOO_LONG: (
        "The input, or input and answer together, are longer than {model} of {provider} takes"
        "{status}."
    ),
    Reason.REASON_MODEL_CONTENT_REFUSED: "{model} of {provider} refuses to answer{status}.",
    Reason.REASON_MODEL_CALL_REJECTED: "{provider} rejects the call of {model}{status}.",
    Reason.REASON_MODEL_OVERLOADED: "{provider} has too much to do to run {model}{status}.",
    Reason.REASON_MODEL_UNREACHABLE: "{provider} cannot be reached to run {model}{status}.",
    Reason.REASON_MODEL_TIMEOUT: "{provider} took too long to run {model}{status}.",
    Reason.REASON_MODEL_RESPONSE_INVALID: (
        "{provider} answered for {model} something that cannot be read{status}."
    ),
}


class Faults:
    """Turns what goes wrong with the models of one provider into ModelErrors.

    Args:
        provider: its name.
        lost: what its SDK raises when there is no answer; the cause is in `__cause__`.
        answered: what its SDK raises when the answer is an error, with its `body`; with
            `status_code` and `response` unless the stream had begun.
        secrets: never written to the log.
    """

    def __init__(
        self,
        provider: str,
        *,
        lost: type[Exception],
        answered: type[Exception],
        secrets: Collection[str],
    ) -> None:
        self._provider = provider
        self._lost = lost
        self._answered = answered
        # The longest first: one may be a part of another. Short ones are words, such as `none`.
        secret = (one for one in secrets if len(one) >= _SHORTEST_SECRET)
        self._secrets = sorted(secret, key=len, reverse=True)

    @contextmanager
    def translated(self, model: str) -> Iterator[None]:
        """Let nothing but ModelErrors out of a call of a model; what is no Exception passes."""
        try:
            yield
        except ModelError:
            raise
        except Exception as error:  # noqa: BLE001 whatever a provider does, it is a fault of the model
            fault = self._fault(model, error)
            # The cause holds the request with its key, and what the provider wrote.
            raise fault from None

    def refused(self, model: str) -> ModelError:
        """Make the fault of an answer that is a refusal."""
        return self._said(model, Reason.REASON_MODEL_CONTENT_REFUSED)

    def unfinished(self, model: str, response: httpx2.Response) -> ModelError:
        """Make the fault of an answer that ended before it was whole, or never was a stream."""
        kind = response.headers.get("content-type", "")
        if not kind.lower().startswith("text/event-stream"):
            self._log(model, response.status_code, f"an answer of type {kind!r}")
            return self._said(model, Reason.REASON_MODEL_RESPONSE_INVALID)
        return self._cut()

    def _fault(self, model: str, error: Exception) -> ModelError:
        cause = error.__cause__ or error
        if isinstance(error, (self._lost, httpx2.RequestError)):
            self._log(model, None, f"{type(cause).__name__}: {cause}")
            return self._silence(model, cause)
        if isinstance(error, self._answered):
            return self._refusal(model, error)
        self._log(model, None, f"{type(error).__name__}: {error}")
        return self._said(model, Reason.REASON_MODEL_RESPONSE_INVALID)

    def _silence(self, model: str, cause: BaseException) -> ModelError:
        match cause:
            case httpx2.ConnectTimeout():
                return self._said(model, Reason.REASON_MODEL_UNREACHABLE)
            case httpx2.TimeoutException():
                return self._said(model, Reason.REASON_MODEL_TIMEOUT)
            case httpx2.DecodingError() | httpx2.TooManyRedirects():
                return self._said(model, Reason.REASON_MODEL_RESPONSE_INVALID)
            case httpx2.ReadError() | httpx2.RemoteProtocolError():
                return self._cut()
            case _:
                return self._said(model, Reason.REASON_MODEL_UNREACHABLE)

    def _refusal(self, model: str, error: Exception) -> ModelError:
        refusal = Refusal.read(getattr(error, "status_code", None), getattr(error, "body", None))
        self._log(model, refusal.status, refusal.text)
        response = getattr(error, "response", None)
        headers: Mapping[str, str] = {} if response is None else response.headers
        wish = retry_after(headers, datetime.now(UTC))
        return self._said(model, refusal.reason, refusal.status, wish)

    def _said(
        self,
        model: str,
        reason: Reason.ValueType,
        status: int | None = None,
        wish: float | None = None,
    ) -> ModelError:
        shown = "" if status is None else f" (HTTP {status})"
        sentence = _SENTENCES[reason].format(provider=self._provider, model=model, status=shown)
        return ModelError(sentence, reason, retry_after=wish)

    def _cut(self) -> ModelError:
        return ModelError(
            f"The connection to {self._provider} was cut before the answer was whole.",
            Reason.REASON_MODEL_UNREACHABLE,
        )

    def _log(self, model: str, status: int | None, text: str) -> None:
        for secret in self._secrets:
            text = text.replace(secret, "…")
        text = printable(_SECRET.sub("…", text), _LOGGED_CHARACTERS)
        facts = {"ai_provider": self._provider, "model": model, "status": status}
        _LOG.warning("a model call failed: %s", text, extra={"facts": facts})


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error as a provider answered it."""

    status: int | None
    """Of HTTP; None in a stream that had begun."""
    names: tuple[str, ...]
    """What the provider calls it, in lower case; the most exact first."""
    text: str
    """What the provider wrote."""

    @classmethod
    def read(cls, status: int | None, body: object) -> Refusal:
        """Read the body of an error: JSON of some shape, or text.

        Args:
            status: below 400 it says nothing: the stream had begun.
            body: `{"error": {…}}`, that in a list, what is in it, or anything else.
        """
        if isinstance(body, list) and body:
            body = body[0]
        text = body if isinstance(body, str) else json.dumps(body, default=str)
        if isinstance(body, Mapping) and isinstance(body.get("error"), Mapping):
            body = body["error"]
        content: Mapping[str, Any] = body if isinstance(body, Mapping) else {}
        details = content.get("details")
        exact = details.get("error_code") if isinstance(details, Mapping) else None
        inner = content.get("innererror")
        inner_code = inner.get("code") if isinstance(inner, Mapping) else None
        code = content.get("code")
        if status is not None and status < 400:
            status = None
        # Of a stream that had begun, some servers say the status as the code.
        if status is None and str(code).isdecimal() and 400 <= int(str(code)[:4]) < 600:
            status = int(str(code)[:4])
        names = (exact, inner_code, code, content.get("type"), content.get("status"))
        return cls(status, tuple(one.lower() for one in names if isinstance(one, str)), text)

    @property
    def reason(self) -> Reason.ValueType:
        """Find its place in the catalogue: by name, by what it says, by status."""
        for name in self.names:
            if name in _CERTAIN:
                return _CERTAIN[name]
        if self.status in _PHRASED:
            text = self.text.lower()
            for phrase, reason in _PHRASES.items():
                if phrase in text:
                    return reason
        if self.status is None:
            likely = (_LIKELY[name] for name in self.names if name in _LIKELY)
            return next(likely, Reason.REASON_MODEL_FAILED)
        if self.status in _STATUSES:
            return _STATUSES[self.status]
        if self.status >= 500:
            return Reason.REASON_MODEL_FAILED
        return Reason.REASON_MODEL_CALL_REJECTED


class Wording:
    """The text of one answer, made fit for UTF-8 piece by piece.

    JSON escapes can say half of a surrogate pair, and a provider may cut an answer between the
    halves. They are joined; a half that stays alone becomes U+FFFD.
    """

    def __init__(self) -> None:
        self._half = ""

    def piece(self, text: str) -> str:
        """Take the next piece; what it gives may be empty."""
        if text.isascii() and not self._half:
            return text
        text = self._half + text
        self._half = ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return mended(text)

    def rest(self) -> str:
        """Take what waited for its other half when the answer ended."""
        half, self._half = self._half, ""
        return mended(half)


def mended(text: str) -> str:
    """Join surrogate pairs, and put U+FFFD for each lone surrogate."""
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def printable(text: str, length: int) -> str:
    """Cut a text to a length, with a space for each character that does not print."""
    return "".join(one if one.isprintable() else " " for one in mended(text[:length]))


def word(value: object) -> str:
    """Read a word of a provider, such as a finish reason; empty for none, `other` for no word."""
    if not isinstance(value, str) or not value:
        return ""
    return value if _WORD.fullmatch(value) else "other"


def count(value: object) -> int | None:
    """Read a number of tokens; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if 0 <= value <= _LARGEST_COUNT else None


def retry_after(headers: Mapping[str, str], now: datetime) -> float | None:
    """Read how many seconds a provider asks to wait; None when it does not say.

    Args:
        headers: of which `retry-after-ms` is more exact than `Retry-After`, which is in seconds or
            a date (RFC 9110, 10.2.3).
        now: what a date is compared with.
    """
    milliseconds = _seconds(headers.get("retry-after-ms"))
    if milliseconds is not None:
        return milliseconds / 1000
    wish = headers.get("retry-after")
    seconds = _seconds(wish)
    if seconds is not None or wish is None:
        return seconds
    try:
        date = parsedate_to_datetime(wish)
    except ValueError:
        return None
    # "-0000" says that the zone is unknown; HTTP dates are in UTC.
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max((date - now).total_seconds(), 0.0)


def _seconds(value: str | None) -> float | None:
    try:
        number = float(value or "")
    except ValueError:
        return None
    return number if math.isfinite(number) and number >= 0 else None
