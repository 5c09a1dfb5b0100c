"""What the conversations service keeps, as documents; one module for each noun."""

from services.conversations.stores.conversations import CONVERSATIONS
from services.conversations.stores.messages import MESSAGES
from services.kit.audit import AUDIT

COLLECTIONS = (
    CONVERSATIONS,
    MESSAGES,
    AUDIT,
)
LOGS: tuple[str, ...] = ()
