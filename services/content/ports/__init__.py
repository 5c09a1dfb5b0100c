"""What content needs from outside, one module for each noun; the docstrings are the contracts."""


class FencedError(Exception):
    """Somebody else changed or removed what was to be changed; nothing happened."""


class TakenError(Exception):
    """Another one of the organisation has the id or the unique key; nothing happened.

    Attributes:
        field: `id`, or the name of the key.
    """

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is taken")
        self.field = field
