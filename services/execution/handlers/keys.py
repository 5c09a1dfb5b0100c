"""Keys of callers."""

from __future__ import annotations

from conductor.auth.v1 import key_pb2
from conductor.auth.v1 import key_service_pb2 as pb
from conductor.auth.v1.key_service_pb2_grpc import KeyServiceServicer
from services.execution.convert import keys as convert
from services.execution.usecases.keys import KeyKeeper
from services.kit import call, paging
from services.kit.interceptor import Context


class KeyHandlers(KeyServiceServicer):
    """The rpcs of KeyService."""

    def __init__(self, keys: KeyKeeper) -> None:
        self._keys = keys

    async def CreateKey(self, request: pb.CreateKeyRequest, context: Context) -> key_pb2.Key:
        asked = convert.asked_of_key(request.key)
        key, text = await self._keys.create(call.current().principal, asked)
        return convert.key_to_proto(key, text)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Context) -> pb.ListKeysResponse:
        org = call.current().principal.org_to_list(request.org_id)
        page = paging.page(request, org)
        found = await self._keys.list(org, page.after, page.size + 1)
        shown = [convert.key_to_proto(key) for key in found[: page.size]]
        return pb.ListKeysResponse(keys=shown, next_page_token=page.next_token(found, len(shown)))

    async def RevokeKey(self, request: pb.RevokeKeyRequest, context: Context) -> key_pb2.Key:
        key = await self._keys.revoke(call.current().principal, request.key_id)
        return convert.key_to_proto(key)

    async def ResolveKey(
        self, request: pb.ResolveKeyRequest, context: Context
    ) -> key_pb2.KeyRecord:
        key = await self._keys.resolve(request.key_id, request.digest)
        return convert.key_record_to_proto(key)
