"""FastAPI and uvicorn with an async route that reads the row GetExecution reads.

Run as `python -m tests.bench.web <port> <database>`. The row is read by key, in the event loop: a hop
to a thread would cost more than the read.
"""

from __future__ import annotations

import sqlite3
import sys
from datetime import UTC, datetime
from typing import Any

import orjson
import uvicorn
from fastapi import FastAPI, HTTPException

PREFIX = "/bench-web"


def create(database: str) -> FastAPI:
    """Make the application."""
    app = FastAPI()
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, check_same_thread=False)

    @app.get(PREFIX + "/executions/{execution_id}")
    async def get_execution(execution_id: str) -> dict[str, Any]:
        row = connection.execute(
            "SELECT id, state, agent_id, conversation_id, instance_id, create_time, body, content "
            "FROM executions WHERE org=? AND id=?",
            ("default", execution_id),
        ).fetchone()
        if row is None:
            raise HTTPException(404, f"No execution has the id {execution_id}.")
        id_, state, agent_id, conversation_id, instance_id, create_time, text, content = row
        body, whole = orjson.loads(text), orjson.loads(content)
        order = body["order"]
        answer: dict[str, Any] = {
            "id": id_,
            "state": f"STATE_{state}",
            "agent_id": agent_id,
            "ai_provider": order.get("ai_provider", ""),
            "model": order.get("model", ""),
            "input": whole["input"],
            "input_preview": whole["input"][:200],
            "result": whole.get("result", ""),
            "cwd": order.get("cwd", ""),
            "metadata": order.get("metadata", {}),
            "request_id": order.get("request_id", ""),
            "conversation_id": conversation_id,
            "instance_id": instance_id,
            "timeout": f"{order['timeout_ms'] / 1000:g}s",
            "create_time": _time(create_time),
        }
        for name in ("start_time", "end_time", "update_time"):
            if name in body:
                answer[name] = _time(body[name])
        return answer

    return app


def _time(microseconds: int) -> str:
    return datetime.fromtimestamp(microseconds / 1e6, UTC).isoformat()


if __name__ == "__main__":
    uvicorn.run(
        create(sys.argv[2]),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        log_level="warning",
        access_log=False,
    )
