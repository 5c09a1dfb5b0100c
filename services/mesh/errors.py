"""Why a mesh does not start, in sentences for the person who started it."""


class CannotStart(Exception):
    """The mesh does not start; the message is one sentence that says why and what to do."""
