"""What the content service keeps, as documents; one module for each noun."""

from services.content.stores.agents import AGENTS
from services.content.stores.archives import IMPORTS, STAGED
from services.content.stores.personas import PERSONAS, VERSIONS
from services.content.stores.probes import PROBES
from services.content.stores.screenplays import SCREENPLAYS, TEXTS
from services.kit.audit import AUDIT

COLLECTIONS = (
    AGENTS,
    PERSONAS,
    VERSIONS,
    SCREENPLAYS,
    TEXTS,
    IMPORTS,
    STAGED,
    PROBES,
    AUDIT,
)
LOGS: tuple[str, ...] = ()
