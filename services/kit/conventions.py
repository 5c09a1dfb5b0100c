"""The names of what is measured of more than one thing, as OpenTelemetry knows them.

`gen_ai.*` and `error.type` are those of the semantic conventions 1.42, where the former are still in
development: a name that changes there is changed here and in docs/operations.md. What they have no
name for is `conductor.*`.
"""

ERROR_TYPE = "error.type"
"""A reason of `conductor.errors.v1.Reason`."""

GEN_AI_OPERATION_NAME = "gen_ai.operation.name"
GEN_AI_PROVIDER_NAME = "gen_ai.provider.name"
GEN_AI_REQUEST_MODEL = "gen_ai.request.model"
GEN_AI_TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 a name, and nothing secret

CONDUCTOR_CALL_OUTCOME = "conductor.call.outcome"
CONDUCTOR_RUN_STATE = "conductor.run.state"

CHAT = "chat"
"""The `gen_ai.operation.name` of a model call."""
OTHER = "other"
"""Stands for every name that nobody listed, so that callers cannot make up series without end."""
