"""Reflection for the whole mesh: whichever process is asked describes every service."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_channelz.v1 import channelz_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection, reflection_pb2

from services.kit import api

_OURS = "conductor."
_FOREIGN = (health_pb2, channelz_pb2, reflection_pb2)
"""What every process hosts besides."""


def servicer() -> reflection.aio.ReflectionServicer:
    """Make what answers reflection.

    Raises:
        SettingsError: the descriptors are missing.
    """
    files = FileDescriptorSet.FromString(api.descriptors()).file
    # Not the pool of this process, which knows what it imports alone.
    pool = DescriptorPool()
    known = {file.name for file in files}
    for file in files:
        file.ClearField("source_code_info")
        pool.AddSerializedFile(file.SerializeToString())
    names = [
        f"{file.package}.{service.name}"
        for file in files
        if file.package.startswith(_OURS)
        for service in file.service
    ]
    for module in _FOREIGN:
        _add(pool, module.DESCRIPTOR, known)
        names += [one.full_name for one in module.DESCRIPTOR.services_by_name.values()]
    return reflection.aio.ReflectionServicer(names, pool)


def _add(pool: DescriptorPool, file: Any, known: set[str]) -> None:
    """Add a file after those it imports."""
    if file.name not in known:
        known.add(file.name)
        for imported in file.dependencies:
            _add(pool, imported, known)
        pool.AddSerializedFile(file.serialized_pb)
