"""The check of keys of LiteLLM's proxy, which loads this file into its own process."""

from __future__ import annotations

import os
from typing import Any


async def check(request: Any, api_key: str) -> Any:
    """Accept one key, and answer others as the proxy does when it has a database."""
    # It lives in an environment of its own, out of the type checker's sight.
    from litellm.proxy._types import (  # type: ignore[import-not-found] # noqa: PLC0415
        ProxyException,
        UserAPIKeyAuth,
    )

    if api_key != os.environ["INTEROP_KEY"]:
        raise ProxyException(
            "Authentication Error, Invalid proxy server token", "auth_error", "key", 401
        )
    return UserAPIKeyAuth(api_key=api_key)
