"""What a user can cause. Knows nothing of HTTP or of the command line; both turn these errors into one line.

There is a class of its own only where somebody tells it apart from the others.
"""


class UnveilError(ValueError):
    """What was asked for cannot be done; the message says so in one line, and names the file or the field.

    `param` is the field to blame, or None: a path into a request (`prompt.2.age`), or relative to a prompt (`age`).
    """

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class PromptError(UnveilError):
    """A prompt that cannot be served. Told apart by whoever knows where the prompt stands, to say so."""


class ArtifactError(UnveilError):
    """A folder that is not a whole artifact of a format this version reads."""
