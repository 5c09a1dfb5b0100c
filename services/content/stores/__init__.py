"""What the content service keeps, as documents; one module for each noun."""

from services.content.stores.agents import AGENTS
from services.content.stores.personas import PERSONAS, VERSIONS
from services.content.stores.screenplays import SCREENPLAYS, TEXTS
from services.kit.audit import AUDIT

COLLECTIONS = (AGENTS, PERSONAS, VERSIONS, SCREENPLAYS, TEXTS, AUDIT)
LOGS: tuple[str, ...] = ()
