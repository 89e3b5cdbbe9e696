"""One tree of errors a user can act on, each kind with its exit code.

Every message says what is wrong, where, and what to do. Anything that is not an
`NpcError` is a bug of ours and may show a traceback.
"""


class NpcError(Exception):
    """Base of every error that npc-local raises on purpose."""

    exit_code = 1


class ConfigError(NpcError):
    """A setting is missing, misspelt, of the wrong type, or would be ignored by the model."""

    exit_code = 2


class PromptError(NpcError):
    """The prompt cannot be used: empty, too long, or outside what the backend understands.

    Attributes:
        message: what is wrong with this prompt.
        hint: what any such prompt should know, a vocabulary say, or ""; part of `str(error)`. Who
            refuses several prompts shows the messages, and each hint once.
    """

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message


class BackendError(NpcError):
    """An agent role could not be served. Never a verdict, a score or a reason."""

    exit_code = 4


class BackendLostError(BackendError):
    """A server answers nothing any more, and nobody can start it again: no prompt can be served."""

    ends_run = True


class ModelFilesError(NpcError):
    """A model directory is missing, incomplete or damaged."""

    exit_code = 5


class GeneratorError(NpcError):
    """The generator failed while making an image."""

    exit_code = 6


class StorageError(NpcError):
    """Results cannot be written: directory in use, no permission, no space left."""

    exit_code = 7


class DeviceLostError(NpcError):
    """The GPU is of no use to this process any more; a new process may go on."""

    exit_code = 8
