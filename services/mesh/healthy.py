"""`python -m services.mesh.healthy <url>`: status 0 when what listens there serves.

For containers, whose health is asked by a command: `grpc://host:port` asks the health service,
`http://host:port/path` wants 200.
"""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urlsplit

from services.mesh import probes


async def healthy(url: str) -> bool:
    """Whether what listens at an address serves.

    Raises:
        ValueError: it is not an address of this kind.
    """
    parts = urlsplit(url)
    if not (parts.hostname and parts.port):
        raise ValueError(f"{url!r} has no host and port")
    match parts.scheme:
        case "grpc":
            return await probes.serves_grpc(parts.hostname, parts.port)
        case "http":
            answer = await probes.http("GET", parts.hostname, parts.port, parts.path or "/")
            return answer.status == 200
        case _:
            raise ValueError(f"{url!r} begins neither with grpc:// nor with http://")


if __name__ == "__main__":
    sys.exit(not asyncio.run(healthy(sys.argv[1])))
