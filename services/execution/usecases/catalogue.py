"""The models there are, and which of them a run gets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from difflib import get_close_matches

from services.execution.domain import Agent, Choice, Model, Wish
from services.execution.ports import Prices, Provider
from services.kit.errors import DomainError, Reason, Resource, Violation

_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Absent:
    """A provider that could serve, were it switched on."""

    remedy: str
    """What switches it on, as a clause: `set OPENAI_API_KEY`."""
    models: Sequence[str] = ()
    """The models it is known to serve."""


@dataclass(frozen=True, slots=True)
class Preference:
    """What runs get that leave the choice open."""

    wish: Wish = field(default_factory=Wish)
    fallbacks: tuple[Wish, ...] = ()


class Catalogue:
    """The models of every provider.

    Args:
        providers: in order of preference; the first serves runs for which nothing was chosen.
        prices: what models cost.
        absent: the providers that are known and not switched on, by name.
        preference: what the settings choose.
    """

    def __init__(
        self,
        providers: Sequence[Provider],
        prices: Prices,
        absent: Mapping[str, Absent] | None = None,
        preference: Preference | None = None,
    ) -> None:
        self._providers = {provider.name: provider for provider in providers}
        self._prices = prices
        self._absent = absent or {}
        self._preference = preference or Preference()

    @property
    def models(self) -> Sequence[tuple[Model, Choice]]:
        """Every model that is known by name, in the order of their ids, with what it costs now."""
        found = [model for one in self._providers.values() for model in one.models.values()]
        found.sort(key=lambda model: (model.id, model.ai_provider))
        return [(model, self._choice(model.ai_provider, model.id)) for model in found]

    @property
    def open_providers(self) -> Sequence[str]:
        """The providers that also serve models which are not known by name."""
        return [one.name for one in self._providers.values() if one.serves_any]

    @property
    def default(self) -> Choice:
        """The model used when nothing else was chosen."""
        return self.choose(Wish(), (), Agent("default"))[0]

    def provider(self, name: str, at: str = "") -> Provider:
        """Look a provider up.

        Args:
            at: where in the request it stands, before its own field's name.

        Raises:
            DomainError: PROVIDER_NOT_FOUND, PROVIDER_NOT_CONFIGURED.
        """
        if name in self._providers:
            return self._providers[name]
        if name in self._absent:
            raise self._not_configured(f"{at}ai_provider", name)
        raise _wrong_provider(
            at, name, f"no provider is named {name}; there are: {', '.join(self._providers)}"
        )

    def choose(self, wish: Wish, fallbacks: Sequence[Wish], agent: Agent) -> tuple[Choice, ...]:
        """Choose a model and its fallbacks.

        The request's choice comes before the agent's, the agent's before that of the settings, and
        that before the first provider. Whoever chooses the model chooses its fallbacks, unless the
        request names some. What is wrong with the agent's own choice is said of `agent_id`.

        Raises:
            DomainError: PROVIDER_NOT_FOUND, PROVIDER_NOT_CONFIGURED, MODEL_NOT_FOUND.
        """
        preference, of_agent = self._preference, Wish(agent.ai_provider, agent.model)
        levels = [
            (wish, ()),
            (of_agent, agent.fallbacks),
            (preference.wish, preference.fallbacks),
        ]
        chosen, following = next(
            (level for level in levels if level[0] != Wish()), (Wish(), preference.fallbacks)
        )
        by_agent = chosen is of_agent
        if chosen.ai_provider and not chosen.model:
            # Whoever names a provider alone gets the model that was chosen for it elsewhere.
            same = (one.model for one, _ in levels if one.ai_provider == chosen.ai_provider)
            chosen = Wish(chosen.ai_provider, next((model for model in same if model), ""))
        with _blamed_on(agent, by_agent):
            first = self._found(chosen)
        with _blamed_on(agent, by_agent and not fallbacks):
            others = [
                self._found(one, f"fallbacks[{number}].")
                for number, one in enumerate(fallbacks or following)
            ]
        return first, *others

    def _found(self, wish: Wish, at: str = "") -> Choice:
        """Look the model up that a wish names, or leaves open.

        Args:
            at: where in the request it stands, before its own field's name.
        """
        if not wish.model:
            name = wish.ai_provider or self._first_with_models()
            models = self.provider(name, at).models
            if not models:
                description = f"{name} has no model of its own; name one"
                raise _unknown_model(at, "", description)
            return self._choice(name, next(iter(models)))
        if not wish.ai_provider:
            return self._choice(self._serving(wish.model, at), wish.model)
        provider = self.provider(wish.ai_provider, at)
        if wish.model in provider.models or provider.serves_any:
            return self._choice(provider.name, wish.model)
        others = [one.name for one in self._providers.values() if wish.model in one.models]
        if others:
            description = f"model {wish.model} is served by {others[0]}, not {provider.name}"
            raise _wrong_provider(at, provider.name, description)
        description = f"this mesh knows no model {wish.model} of {provider.name}; "
        raise _unknown_model(at, wish.model, description + _others(wish.model, provider.models))

    def _first_with_models(self) -> str:
        """Find the provider of runs that leave everything open; some know no model by name."""
        return next(name for name, one in self._providers.items() if one.models)

    def _serving(self, model: str, at: str) -> str:
        """Find the first provider of a model."""
        for provider in self._providers.values():
            if model in provider.models:
                return provider.name
        for name, absent in self._absent.items():
            if model in absent.models:
                raise self._not_configured(f"{at}model", name, model)
        description = f"no model has the id {model}; "
        raise _unknown_model(at, model, description + _others(model, self._ids()))

    def _ids(self) -> Iterator[str]:
        return (model for one in self._providers.values() for model in one.models)

    def _choice(self, ai_provider: str, model: str) -> Choice:
        known = self._providers[ai_provider].models.get(model)
        price = self._prices.price(ai_provider, model)
        if known is None:
            return Choice(ai_provider, model, price)
        return Choice(ai_provider, model, price, known.max_output_tokens, known.context_tokens)

    def _not_configured(self, field_name: str, name: str, model: str = "") -> DomainError:
        served = f"{model} is served by {name}, which" if model else name
        description = f"{served} is not configured here; {self._absent[name].remedy}"
        return DomainError(
            Reason.REASON_PROVIDER_NOT_CONFIGURED,
            f"{field_name}: {description}",
            violations=[Violation(field_name, description)],
            resources=[Resource("provider", name)],
        )


@contextmanager
def _blamed_on(agent: Agent, is_its_choice: bool) -> Iterator[None]:
    """Say of `agent_id` what is wrong with what the agent chooses: the caller named nothing else."""
    try:
        yield
    except DomainError as error:
        if not is_its_choice:
            raise
        description = f"the agent {agent.id} cannot run as it is: {error.message}"
        raise DomainError(
            error.reason,
            f"agent_id: {description}",
            violations=[Violation("agent_id", description)],
            resources=error.resources,
        ) from None


def _others(model: str, ids: Iterable[str]) -> str:
    """Name the models that may have been meant, else some of those there are."""
    known = sorted(set(ids))
    if near := get_close_matches(model, known, n=3, cutoff=0.5):
        return f"did you mean {' or '.join(near)}?"
    more = f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else ""
    return f"there are: {', '.join(known[:_SHOWN])}{more}"


def _wrong_provider(at: str, name: str, description: str) -> DomainError:
    return DomainError(
        Reason.REASON_PROVIDER_NOT_FOUND,
        f"{at}ai_provider: {description}",
        violations=[Violation(f"{at}ai_provider", description)],
        resources=[Resource("provider", name)],
    )


def _unknown_model(at: str, model: str, description: str) -> DomainError:
    return DomainError(
        Reason.REASON_MODEL_NOT_FOUND,
        f"{at}model: {description}",
        violations=[Violation(f"{at}model", description)],
        resources=[Resource("model", model)],
    )
