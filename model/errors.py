"""The errors a user can cause. Knows nothing of HTTP or of the command line; both turn these into one line."""


class PromptError(ValueError):
    """A prompt that cannot be served. `param` names the part to blame, relative to the prompt (a column, say)."""

    def __init__(self, message: str, *, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


class ArtifactError(ValueError):
    """A folder that is not a whole artifact of a format this version reads."""


class DataError(ValueError):
    """Training data that cannot be used. The message names the file, and the row and column where there is one."""
