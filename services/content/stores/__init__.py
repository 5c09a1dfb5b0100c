"""What the content service keeps, as documents; one module for each noun."""

from services.content.stores.agents import AGENTS
from services.kit.audit import AUDIT

COLLECTIONS = (AGENTS, AUDIT)
LOGS: tuple[str, ...] = ()
