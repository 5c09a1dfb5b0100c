"""What the content service keeps, as documents."""

from services.kit.audit import AUDIT

COLLECTIONS = (AUDIT,)
LOGS: tuple[str, ...] = ()
