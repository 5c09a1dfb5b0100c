"""Who is let in: what each rpc asks of its callers, and whoever judges them by it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar

from google.protobuf import descriptor_pool
from google.protobuf.message import Message

from conductor.auth.v1 import access_pb2
from services.kit import ids, keys
from services.kit.call import Call
from services.kit.errors import DomainError, Reason
from services.kit.keys import KeyRecord, Keys
from services.kit.principals import NOBODY, Principal, Scope
from services.kit.rates import Rates
from services.kit.settings import PREFIX, SECRET_CHARACTERS, Settings, SettingsError
from services.kit.signing import PEER, PRINCIPAL, SignatureError, Signer, decoded, same
from services.kit.tasks import ended

_SCOPES = {
    access_pb2.SCOPE_READ: Scope.READ,
    access_pb2.SCOPE_RUN: Scope.RUN,
    access_pb2.SCOPE_ADMIN: Scope.ADMIN,
    access_pb2.SCOPE_OPERATOR: Scope.OPERATOR,
}
_NO_SIDE_EFFECTS = 1

CACHE_SECONDS = 5.0
"""How long a process believes what it read of a key."""

_API_KEY = "x-api-key"
_AUTHORIZATION = "authorization"
_EDGE = "x-conductor-edge"
_JWT = "x-conductor-jwt"
_CACHED = 10_000
_ORG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_NAME_CHARACTERS = 128
_HOW = "show a key as `X-API-Key: ...` or `Authorization: Bearer ...`"
_UNKNOWN = "The key is not known, or was revoked."
_BOOTSTRAP = Principal(name="bootstrap", scopes=frozenset({Scope.OPERATOR}))

V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class Access:
    """What an rpc asks of its callers."""

    scope: Scope | None = None
    """The scope they need; None lets anyone in."""
    token_for: str = ""
    """The field of the request whose resource a stream token, in its field `token`, stands in for a
    key."""
    changes: bool = False
    """Whether it changes something, so that there is a record of each call."""
    internal: bool = False
    """Whether the other services of the mesh alone may call it."""
    counts_requests: bool = False
    """Whether each request of a stream counts as a call."""


def access_of(service: str, method: str) -> Access:
    """Read what an rpc asks of its callers from its options.

    Raises:
        ValueError: it does not say.
    """
    pool: Any = descriptor_pool.Default()
    options = pool.FindServiceByName(service).methods_by_name[method].GetOptions()
    said = options.Extensions[access_pb2.access]
    if not said.open and said.scope not in _SCOPES:
        raise ValueError(f"{service}/{method} does not say who may call it")
    return Access(
        scope=None if said.open else _SCOPES[said.scope],
        token_for=said.token_for,
        changes=options.idempotency_level != _NO_SIDE_EFFECTS,
        internal=said.internal,
        counts_requests=said.counts_requests,
    )


class Guard(Protocol):
    """Judges callers."""

    async def admit(self, served: Call, access: Access, request: Message | None) -> None:
        """Find out who calls, set it as the principal of the call, and let them in.

        Args:
            request: what is asked; None where it comes later, as a stream.

        Raises:
            DomainError: UNAUTHENTICATED, PERMISSION_DENIED, RATE_LIMITED, STORE_UNAVAILABLE,
                SERVICE_UNAVAILABLE.
        """
        ...

    async def pace(self, served: Call) -> None:
        """Count one more request of a caller who was let in, once it may be made."""
        ...


class OpenGuard:
    """Lets everyone in, as often as their organisation may call."""

    def __init__(self, rates: Rates) -> None:
        self._rates = rates

    async def admit(self, served: Call, access: Access, request: Message | None) -> None:  # noqa: ARG002 the signature is given
        """Count the call, unless another service makes it for a caller whom it has counted."""
        if PEER not in served.metadata:
            await _count(self._rates, served.principal.org_id)

    async def pace(self, served: Call) -> None:
        """Wait as long as the organisation has to, unless another service calls."""
        if PEER not in served.metadata:
            await _await_count(self._rates, served.principal.org_id)


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What is asked of tokens of other issuers; Envoy has checked their signatures."""

    issuer: str
    """Empty lets none in."""
    audience: str
    org_claim: str
    scope_claim: str


class _Holder(NamedTuple):
    """Who shows a key that was found to be right."""

    principal: Principal
    key_id: str
    expire_time: float
    """Microseconds since the epoch."""


class _Reading(NamedTuple):
    """What a key was at some time."""

    began: float
    record: KeyRecord | None


class KeyGuard:
    """Lets in who shows a key, a token of an issuer it trusts, or what another process signed.

    What is read of a key is believed for a few seconds, so that it is revoked everywhere within
    them, and while those who store it are away it works as long. Texts of keys are not kept, only digests.

    Args:
        signer: of this mesh.
        stored: the keys there are.
        tokens: what is asked of tokens.
        bootstrap: the digest of the key that is an operator's from the start; empty for none.
        rates: counts calls, when there are limits.
        used: told of each use of a stored key, by its id.
        clock: microseconds since the epoch.
        monotonic: seconds.
        cached: how many right keys are remembered, and how many wrong ones.
    """

    def __init__(
        self,
        signer: Signer,
        stored: Keys,
        tokens: TokenRules,
        *,
        bootstrap: str,
        rates: Rates | None,
        used: Callable[[str], None],
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        cache_seconds: float = CACHE_SECONDS,
        cached: int = _CACHED,
    ) -> None:
        self._signer = signer
        self._stored = stored
        self._tokens = tokens
        self._bootstrap = bootstrap
        self._rates = rates
        self._used = used
        self._clock = clock
        self._right = _Recent[_Holder](monotonic, cache_seconds, cached)
        # Of its own, so that no flood of wrong keys pushes out the right ones.
        self._wrong = _Recent[bool](monotonic, cache_seconds, cached)
        self._monotonic = monotonic
        self._reading: dict[str, asyncio.Task[_Reading]] = {}

    async def admit(self, served: Call, access: Access, request: Message | None) -> None:
        """Find out who calls, and let them in when they may."""
        served.principal = NOBODY
        signed = served.metadata.get(PRINCIPAL)
        if signed is not None:
            # Whoever passed it on has counted the call.
            served.principal = self._passed_on(signed)
        else:
            served.principal = await self._caller(served.metadata, access, request)
            if self._rates is not None:
                await _count(self._rates, served.principal.org_id)
        if access.internal and signed is None:
            raise DomainError(
                Reason.REASON_PERMISSION_DENIED,
                "Only the services of the mesh may call this, whatever the key.",
            )
        if access.scope is not None and not served.principal.may(access.scope):
            raise DomainError(
                Reason.REASON_PERMISSION_DENIED,
                f"This takes the scope {access.scope}, which the caller does not have.",
                metadata={"scope": access.scope},
            )

    async def pace(self, served: Call) -> None:
        """Wait as long as the organisation has to, unless another service calls."""
        if self._rates is not None and PRINCIPAL not in served.metadata:
            await _await_count(self._rates, served.principal.org_id)

    async def close(self) -> None:
        """End what is being read."""
        for task in list(self._reading.values()):
            await ended(task)

    async def _caller(
        self, metadata: Mapping[str, str], access: Access, request: Message | None
    ) -> Principal:
        proof = metadata.get(_EDGE)
        if proof is not None and not same(proof, self._signer.edge_proof):
            raise _unauthenticated(f"The header {_EDGE} is not this mesh's.")
        token = metadata.get(_JWT)
        if token is not None:
            if proof is None:
                raise _unauthenticated(f"The header {_JWT} is believed from the edge alone.")
            if _API_KEY in metadata:
                raise _unauthenticated("There are a key and a token; show one of them.")
            return self._bearer(token)
        key = _shown(metadata)
        if key:
            return await self._holder(key)
        if access.token_for and request is not None and (token := getattr(request, "token", "")):
            return self._watcher(token, getattr(request, access.token_for))
        raise _unauthenticated(f"There is no key; {_HOW}.")

    def _passed_on(self, signed: str) -> Principal:
        try:
            return self._signer.read_principal(signed)
        except SignatureError:
            raise _unauthenticated(
                f"The header {PRINCIPAL} is not signed by this mesh, or has expired."
            ) from None

    def _watcher(self, token: str, resource: str) -> Principal:
        try:
            org = self._signer.read_stream_token(token, resource)
        except SignatureError:
            raise _unauthenticated(
                f"The token does not fit this stream, or has expired; {_HOW}."
            ) from None
        return Principal(org, f"stream:{resource}", frozenset({Scope.READ}))

    def _bearer(self, token: str) -> Principal:
        """Read the claims of a token that Envoy let pass."""
        rules = self._tokens
        try:
            claims = decoded(token)
        except ValueError:
            claims = None
        if not isinstance(claims, dict):
            raise _unauthenticated("The claims of the token cannot be read.")
        audience = claims.get("aud")
        if not rules.issuer or claims.get("iss") != rules.issuer:
            raise _unauthenticated("The token is of an issuer that is not let in (iss).")
        if rules.audience not in (audience if isinstance(audience, list) else [audience]):
            raise _unauthenticated("The token is for somebody else (aud).")
        expire = claims.get("exp")
        if not isinstance(expire, int | float) or expire * 1_000_000 <= self._clock():
            raise _unauthenticated("The token has expired, or does not say when it will (exp).")
        org = claims.get(rules.org_claim)
        if not isinstance(org, str) or not _ORG.fullmatch(org):
            raise _unauthenticated(
                f"The claim {rules.org_claim} of the token has to name an organisation."
            )
        said = claims.get(rules.scope_claim)
        words = said.split() if isinstance(said, str) else said if isinstance(said, list) else []
        scopes = frozenset(scope for scope in Scope if scope.value in words)
        return Principal(org, f"jwt:{claims.get('sub')}"[:_NAME_CHARACTERS], scopes)

    async def _holder(self, text: str) -> Principal:
        hashed = hashlib.sha256(text.encode())
        digest = hashed.digest()
        holder = self._right.get(digest)
        if holder is None:
            if same(hashed.hexdigest(), self._bootstrap):
                return _BOOTSTRAP
            holder = await self._found(text, digest)
        if holder.expire_time <= self._clock():
            raise _unauthenticated("The key has expired.")
        self._used(holder.key_id)
        return holder.principal

    async def _found(self, text: str, digest: bytes) -> _Holder:
        known = keys.parts(text)
        if known is None or self._wrong.get(digest):
            raise _unauthenticated(_UNKNOWN)
        key_id, secret = known
        shown = keys.digest(secret)
        began, record = await self._read(key_id, shown)
        if record is None or not same(shown, record.digest) or record.revoke_time is not None:
            self._wrong.put(digest, True, began)
            raise _unauthenticated(_UNKNOWN)
        holder = _Holder(
            Principal(record.org_id, f"key:{key_id}", record.scopes),
            key_id,
            math.inf if record.expire_time is None else record.expire_time,
        )
        self._right.put(digest, holder, began)
        return holder

    async def _read(self, key_id: str, shown: str) -> _Reading:
        """Read a key; those who want the same one at the same time share a read."""
        reading = self._reading.get(key_id)
        if reading is None:
            reading = asyncio.create_task(self._dated(key_id, shown), name="read a key")
            self._reading[key_id] = reading
            reading.add_done_callback(lambda task: self._was_read(key_id, task))
        # Whoever goes away leaves the others their answer.
        return await asyncio.shield(reading)

    async def _dated(self, key_id: str, shown: str) -> _Reading:
        return _Reading(self._monotonic(), await self._stored.find(key_id, shown))

    def _was_read(self, key_id: str, task: asyncio.Task[_Reading]) -> None:
        del self._reading[key_id]
        if not task.cancelled():
            # Nobody may be left to hear of it.
            task.exception()


class _Recent(Generic[V]):
    """What was found out in the last few seconds, the most recently used of it."""

    def __init__(self, monotonic: Callable[[], float], seconds: float, most: int) -> None:
        self._monotonic = monotonic
        self._seconds = seconds
        self._most = most
        self._kept: OrderedDict[bytes, tuple[float, V]] = OrderedDict()

    def get(self, key: bytes) -> V | None:
        """Find what is not too old."""
        kept = self._kept.get(key)
        if kept is None or kept[0] + self._seconds <= self._monotonic():
            return None
        self._kept.move_to_end(key)
        return kept[1]

    def put(self, key: bytes, value: V, since: float) -> None:
        """Keep what was true at some time."""
        self._kept[key] = since, value
        self._kept.move_to_end(key)
        if len(self._kept) > self._most:
            self._kept.popitem(last=False)


def signer_of(settings: Settings) -> Signer | None:
    """Make the signer of this mesh; None while authentication is off.

    Raises:
        SettingsError: there is nothing to sign with.
    """
    if settings.auth == "off":
        return None
    secret = settings.mesh_secret.get_secret_value()
    if not secret:
        raise SettingsError(
            f"{PREFIX}AUTH=on needs {PREFIX}MESH_SECRET, the same for every process of the mesh, of "
            f"at least {SECRET_CHARACTERS} characters; `openssl rand -hex 32` makes one."
        )
    return Signer(secret, ids.now)


def guard_of(
    settings: Settings,
    signer: Signer | None,
    stored: Callable[[], Keys],
    rates: Rates | None,
    used: Callable[[str], None],
    stack: AsyncExitStack,
) -> Guard | None:
    """Make the guard that the settings ask for; None when everyone may call as often as they like.

    Args:
        signer: of this mesh; None while authentication is off.
        stored: makes the keys there are, which are asked for while authentication is on alone.
        used: told of each use of a stored key, by its id.
        stack: ends the guard.
    """
    if signer is None:
        return None if rates is None else OpenGuard(rates)
    bootstrap = settings.bootstrap_key.get_secret_value()
    guard = KeyGuard(
        signer,
        stored(),
        TokenRules(
            settings.jwt_issuer,
            settings.jwt_audience,
            settings.jwt_org_claim,
            settings.jwt_scope_claim,
        ),
        bootstrap=keys.digest(bootstrap) if bootstrap else "",
        rates=rates,
        used=used,
        clock=ids.now,
        monotonic=time.monotonic,
    )
    stack.push_async_callback(guard.close)
    return guard


async def _count(rates: Rates, org_id: str) -> None:
    wait = await rates.admit(org_id)
    if wait is not None:
        raise DomainError(
            Reason.REASON_RATE_LIMITED,
            f"The organisation {org_id} calls more often than it may; try again in {wait:.1f} s.",
            retry_after=wait,
        )


async def _await_count(rates: Rates, org_id: str) -> None:
    wait = await rates.admit(org_id)
    while wait is not None:
        await asyncio.sleep(wait)
        wait = await rates.admit(org_id)


def _shown(metadata: Mapping[str, str]) -> str:
    """Find the key a caller shows; empty when there is none."""
    key = metadata.get(_API_KEY, "").strip()
    scheme, _, bearer = metadata.get(_AUTHORIZATION, "").strip().partition(" ")
    if scheme.lower() != "bearer":
        return key
    bearer = bearer.strip()
    if key and bearer != key:
        raise _unauthenticated("X-API-Key and Authorization show different keys; show one of them.")
    return bearer


def _unauthenticated(message: str) -> DomainError:
    return DomainError(Reason.REASON_UNAUTHENTICATED, message)
