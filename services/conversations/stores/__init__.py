"""What the conversations service keeps, as documents; one module for each noun."""

from services.conversations.stores.conversations import CONVERSATIONS
from services.conversations.stores.histories import RUNS
from services.conversations.stores.instances import INSTANCES, PARENTS
from services.conversations.stores.messages import MESSAGES
from services.conversations.stores.visitors import VISITORS
from services.kit.audit import AUDIT

COLLECTIONS = (
    CONVERSATIONS,
    MESSAGES,
    INSTANCES,
    PARENTS,
    RUNS,
    VISITORS,
    AUDIT,
)
LOGS: tuple[str, ...] = ()
