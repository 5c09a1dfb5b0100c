"""The names of what is measured of more than one thing, as OpenTelemetry knows them.

`rpc.*`, `db.*`, `gen_ai.*` and `error.type` are those of the semantic conventions 1.42, where the first
and the third are still in development: a name that changes there is changed here and in
docs/operations.md. What they have no name for is `conductor.*`.
"""

ERROR_TYPE = "error.type"
"""A reason of `conductor.errors.v1.Reason`."""

RPC_SYSTEM_NAME = "rpc.system.name"
RPC_METHOD = "rpc.method"
RPC_RESPONSE_STATUS_CODE = "rpc.response.status_code"

DB_SYSTEM_NAME = "db.system.name"
DB_NAMESPACE = "db.namespace"
DB_OPERATION_NAME = "db.operation.name"
DB_OPERATION_BATCH_SIZE = "db.operation.batch.size"
DB_COLLECTION_NAME = "db.collection.name"

GEN_AI_AGENT_ID = "gen_ai.agent.id"
GEN_AI_AGENT_NAME = "gen_ai.agent.name"
GEN_AI_CONVERSATION_ID = "gen_ai.conversation.id"
GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 a name, and nothing secret
GEN_AI_RESPONSE_FINISH_REASONS = "gen_ai.response.finish_reasons"
GEN_AI_USAGE_INPUT_TOKENS = "gen_ai.usage.input_tokens"
GEN_AI_USAGE_OUTPUT_TOKENS = "gen_ai.usage.output_tokens"

CONDUCTOR_CALL_OUTCOME = "conductor.call.outcome"
CONDUCTOR_EXECUTION_ID = "conductor.execution.id"
CONDUCTOR_MODEL_ATTEMPT = "conductor.model.attempt"
CONDUCTOR_RUN_LEFT = "conductor.run.left"
"""Why a worker let go of a run that had not ended."""
CONDUCTOR_RUN_RESUMED = "conductor.run.resumed"
CONDUCTOR_RUN_STATE = "conductor.run.state"

CONDUCTOR_STORE_REFUSED = "conductor.store.refused"
"""What a write met that it has to expect: `conflict`, `duplicate` or `limit`."""
CONDUCTOR_STORE_UNTOLD = "conductor.store.untold"
"""How many store operations in a span have none of their own, because it has so many."""

GRPC = "grpc"
INVOKE_AGENT = "invoke_agent"
"""The `gen_ai.operation.name` of a run."""
CHAT = "chat"
"""The `gen_ai.operation.name` of a model call."""
OTHER = "other"
"""Stands for every name that nobody listed, so that callers cannot make up series without end."""
