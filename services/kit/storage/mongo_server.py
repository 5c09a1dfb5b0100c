"""What all of the store on MongoDB shares: the client, keys, indexes, and what its errors mean."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from pymongo import AsyncMongoClient, IndexModel
from pymongo.errors import (
    DocumentTooLarge,
    DuplicateKeyError,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WriteConcernError,
)

from services.kit.errors import DomainError
from services.kit.settings import PREFIX, SettingsError
from services.kit.storage.ports import store_full, store_unavailable

_LOG = logging.getLogger(__name__)
_SETTING = f"{PREFIX}STORE_URL"

_CLIENT_OPTIONS = {
    "serverSelectionTimeoutMS": 1000,
    "heartbeatFrequencyMS": 2000,
    "connectTimeoutMS": 1000,
    "waitQueueTimeoutMS": 5000,
    "retryWrites": True,
    "retryReads": True,
}

_ANSWER_MS = 5000
_PREPARED_MS = 3_600_000
"""To make an index over many documents takes long, and is worth waiting for."""

_OUT_OF_DISK = 14031
_FULL = re.compile(
    r"\b(disk|database|space)\b.{0,40}\b(full|exhausted)\b|no space left|out of disk"
)
_UNAUTHORIZED, _AUTHENTICATION_FAILED, _ATLAS = 13, 18, 8000
_TOO_LARGE = {10334, 17419, 17420}
_TAKEN = "UNIQUE constraint failed"
"""How FerretDB 1.x says that an update would break a unique key; it has no code for it."""


def connect(
    url: str, driver: Literal["motor", "pymongo"], service: str, *, prepares: bool = False
) -> Any:
    """Make a client, which connects when it is first used; one that prepares the store has patience.

    Raises:
        SettingsError: the URL is none.
    """
    options: dict[str, Any] = {
        **_CLIENT_OPTIONS,
        "appname": f"conductor-{service}",
        "socketTimeoutMS": _PREPARED_MS if prepares else _ANSWER_MS,
    }
    try:
        return _kind(driver)(url, **options)
    except (PyMongoError, ValueError):
        # What the driver says may quote a part of the URL, and so of its password.
        raise unusable_url() from None


def _kind(driver: Literal["motor", "pymongo"]) -> Any:
    if driver == "motor":
        from motor.motor_asyncio import AsyncIOMotorClient  # noqa: PLC0415 only when it is chosen

        return AsyncIOMotorClient
    return AsyncMongoClient


async def let_go(client: Any) -> None:
    """Close a client."""
    closing = client.close()
    if closing is not None:  # Motor closes at once.
        await closing


def key(*parts: str) -> str:
    """Join texts such that no two lists of texts make the same key."""
    return "/".join(part.replace("%", "%25").replace("/", "%2F") for part in parts)


async def create_indexes(collection: Any, indexes: Iterable[IndexModel]) -> None:
    """Make the indexes that are missing."""
    present = await collection.index_information()
    # MongoDB passes over what is there already; FerretDB falls over it.
    if missing := [index for index in indexes if index.document["name"] not in present]:
        await collection.create_indexes(missing)


def is_duplicate(error: PyMongoError) -> bool:
    """Tell whether a unique key is taken."""
    return isinstance(error, DuplicateKeyError) or (
        isinstance(error, OperationFailure) and _TAKEN in str(error)
    )


@contextmanager
def translated() -> Iterator[None]:
    """Turn the driver's errors into ours."""
    try:
        yield
    except DocumentTooLarge as error:
        raise ValueError("A document is larger than the 16 MiB MongoDB takes.") from error
    except TimeoutError as error:
        _LOG.warning("the store did not answer in time")
        raise store_unavailable() from error
    except PyMongoError as error:
        if isinstance(error, OperationFailure) and error.code in _TOO_LARGE:
            raise ValueError("A document is larger than the 16 MiB MongoDB takes.") from error
        raise _translate(error) from error


def _translate(error: PyMongoError) -> DomainError:
    # What follows is what the driver knows of every server.
    _LOG.warning("the store failed: %s", str(error).partition(", Topology Description")[0])
    if isinstance(error, OperationFailure) and (
        error.code == _OUT_OF_DISK or _FULL.search(str(error).lower())
    ):
        return store_full()
    return store_unavailable()


def unusable_url() -> SettingsError:
    """Say that the URL is none."""
    return SettingsError(
        f"{_SETTING} cannot be used: it has to be an address such as "
        "mongodb://user:password@host:27017/conductor, with every special character of the "
        "password written as its percent code."
    )


def refusal(error: PyMongoError) -> SettingsError | DomainError:
    """What to say when the store cannot be opened."""
    if not isinstance(error, OperationFailure) or isinstance(
        error, (WriteConcernError, ExecutionTimeout)
    ):
        return _translate(error)
    if error.code in {_AUTHENTICATION_FAILED, _ATLAS}:
        return SettingsError(f"{_SETTING}: MongoDB refuses its user and password.")
    if error.code == _UNAUTHORIZED:
        return SettingsError(
            f"{_SETTING}: MongoDB lets its user not read and write the database; give it the role "
            "readWrite there, or name a user that has it."
        )
    translated = _translate(error)
    if translated.reason == store_full().reason:
        return translated
    said = (error.details or {}).get("errmsg", "")
    return SettingsError(f"{_SETTING}: MongoDB refuses what a store needs: {said}.")
