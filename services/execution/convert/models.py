"""Models as messages."""

from __future__ import annotations

from conductor.execution.v1 import model_pb2
from services.execution.domain import NANO, Choice, CircuitState, Model, Price
from services.kit.messages import timestamp

_STATE = "STATE_"


def model_to_proto(
    model: Model,
    choice: Choice,
    default: Choice,
    circuit: tuple[CircuitState, int, float],
    now: int,
) -> model_pb2.Model:
    """Print a model.

    Args:
        choice: the same model, with what it costs.
        circuit: its state, how many calls failed in a row, and for how many seconds it stays open.
        now: microseconds since the epoch.
    """
    message = model_pb2.Model(
        id=model.id,
        ai_provider=model.ai_provider,
        description=model.description,
        is_default=(choice.ai_provider, choice.model) == (default.ai_provider, default.model),
        context_tokens=model.context_tokens or 0,
        max_output_tokens=model.max_output_tokens or 0,
        price=_price(choice.price),
    )
    state, failures, seconds = circuit
    message.circuit.state = model_pb2.Circuit.State.Value(f"{_STATE}{state}")
    message.circuit.failures = failures
    if state is CircuitState.OPEN:
        message.circuit.probe_time.CopyFrom(timestamp(now + round(seconds * 1e6)))
    return message


def _price(price: Price | None) -> model_pb2.Price | None:
    if price is None:
        return None
    shown = {
        "cached_input_usd": price.cached_input,
        "cache_write_input_usd": price.cache_write_input,
    }
    return model_pb2.Price(
        input_usd=price.input / NANO,
        output_usd=price.output / NANO,
        **{name: value / NANO for name, value in shown.items() if value is not None},
    )
