"""The models there are, and which one a run gets."""

from __future__ import annotations

from collections.abc import Sequence

from services.execution.domain import Agent, Model
from services.execution.ports import Provider
from services.kit.errors import DomainError, Reason, Resource, Violation


class Catalogue:
    """The models of every provider.

    Args:
        providers: in order of preference; the first serves runs for which nothing was chosen.
    """

    def __init__(self, providers: Sequence[Provider]) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._models = {
            model.id: model for provider in providers for model in provider.models.values()
        }

    @property
    def models(self) -> Sequence[Model]:
        """Every model, in the order of their ids."""
        return sorted(self._models.values(), key=lambda model: model.id)

    @property
    def default(self) -> Model:
        """The model used when nothing else was chosen."""
        return self._first(next(iter(self._providers.values())))

    def provider(self, name: str) -> Provider:
        """Look a provider up.

        Raises:
            DomainError: PROVIDER_NOT_FOUND.
        """
        try:
            return self._providers[name]
        except KeyError:
            raise _unknown_provider(
                name, f"no provider is named {name}; there are: {', '.join(self._providers)}"
            ) from None

    def choose(self, ai_provider: str, model: str, agent: Agent) -> Model:
        """Choose a model: the request's choice before the agent's before the default.

        Raises:
            DomainError: PROVIDER_NOT_FOUND, MODEL_NOT_FOUND.
        """
        if not model and not ai_provider:
            model, ai_provider = agent.model, agent.ai_provider
        if model:
            return self._named(model, ai_provider)
        if ai_provider:
            return self._first(self.provider(ai_provider))
        return self.default

    def _named(self, model: str, ai_provider: str) -> Model:
        if ai_provider:
            self.provider(ai_provider)
        found = self._models.get(model)
        if found is None:
            description = (
                f"no model has the id {model}; there are: {', '.join(sorted(self._models))}"
            )
            raise DomainError(
                Reason.REASON_MODEL_NOT_FOUND,
                f"model: {description}",
                violations=[Violation("model", description)],
                resources=[Resource("model", model)],
            )
        if ai_provider and found.ai_provider != ai_provider:
            raise _unknown_provider(
                ai_provider, f"model {model} is served by {found.ai_provider}, not {ai_provider}"
            )
        return found

    @staticmethod
    def _first(provider: Provider) -> Model:
        return next(iter(provider.models.values()))


def _unknown_provider(name: str, description: str) -> DomainError:
    return DomainError(
        Reason.REASON_PROVIDER_NOT_FOUND,
        f"ai_provider: {description}",
        violations=[Violation("ai_provider", description)],
        resources=[Resource("provider", name)],
    )
