"""Opens the store, the queue and the wake-ups that the settings name."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack

from services.kit.errors import DomainError
from services.kit.settings import PREFIX, Settings, SettingsError
from services.kit.storage.inprocess import InProcessQueue, InProcessWakeups
from services.kit.storage.ports import Collection, Store, Wakeups, WorkQueue
from services.kit.storage.sqlite import SqliteStore


async def open_store(
    settings: Settings,
    service: str,
    collections: Iterable[Collection],
    logs: Iterable[str],
    stack: AsyncExitStack,
) -> Store:
    """Open the store of a service; the stack closes it.

    Raises:
        SettingsError: it cannot be opened as the settings say.
        UnreadableStoreError: a newer release wrote it, or it is damaged.
        DomainError: STORE_UNAVAILABLE or STORE_FULL, from SQLite.
    """
    url = settings.store_url.get_secret_value()
    if url:
        store = await _open_shared(url, settings, service, collections, logs)
    else:
        store = await _open_embedded(settings, service, collections, logs)
    stack.push_async_callback(store.close)
    return store


async def _open_shared(
    url: str,
    settings: Settings,
    service: str,
    collections: Iterable[Collection],
    logs: Iterable[str],
) -> Store:
    if not url.startswith(("mongodb://", "mongodb+srv://")):
        raise SettingsError(
            f"{PREFIX}STORE_URL has to begin with mongodb:// or mongodb+srv://, or be empty for "
            "SQLite in the data directory."
        )
    # Its driver takes a while to import, and most who run a mesh need none.
    from services.kit.storage.mongodb import MongoStore  # noqa: PLC0415

    try:
        return await MongoStore.open(url, settings.store_driver, service, collections, logs)
    except DomainError as error:
        raise SettingsError(
            f"The store that {PREFIX}STORE_URL names cannot be opened: {error.message}"
        ) from error


async def _open_embedded(
    settings: Settings, service: str, collections: Iterable[Collection], logs: Iterable[str]
) -> Store:
    directory = settings.data_dir / service
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise SettingsError(f"{PREFIX}DATA_DIR cannot be used: {error}") from error
    return await SqliteStore.open(directory / f"{service}.db", collections, logs)


async def open_queue(
    settings: Settings, service: str, stack: AsyncExitStack
) -> tuple[WorkQueue, Wakeups]:
    """Open what carries work and wake-ups between the processes of a service; the stack closes it.

    A Redis that is away is no error: the store is the truth, and it is used once it is there.

    Raises:
        SettingsError: CONDUCTOR_QUEUE_URL cannot be used.
    """
    url = settings.queue_url.get_secret_value()
    if not url:
        return InProcessQueue(), InProcessWakeups()
    # The driver is a quarter of a second that only those pay who use it.
    from services.kit.storage.redis import RedisQueue, RedisWakeups  # noqa: PLC0415

    queue = RedisQueue(url, service)
    stack.push_async_callback(queue.close)
    wakeups = RedisWakeups(url, service)
    stack.push_async_callback(wakeups.close)
    return queue, wakeups
