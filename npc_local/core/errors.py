"""One tree of errors a user can act on, each kind with its exit code.

Every message says what is wrong, where, and what to do. Anything that is not an
`NpcError` is a bug of ours and may show a traceback.
"""

from __future__ import annotations

from typing import ClassVar

INTERRUPTED = 130
"""The exit code of what a person or a signal has ended."""


class NpcError(Exception):
    """Base of every error that npc-local raises on purpose.

    Attributes:
        exit_code: of a command that ends with it.
        ends_run: it is not about one prompt: the next one would fail as well.
    """

    exit_code = 1
    ends_run: ClassVar[bool] = False


class ConfigError(NpcError):
    """A setting is missing, misspelt, of the wrong type, or would be ignored by the model."""

    exit_code = 2
    ends_run = True


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
    ends_run = True


class DeviceLostError(NpcError):
    """The GPU is of no use to this process any more; a new process may go on."""

    exit_code = 8
    ends_run = True


class InterruptedRunError(NpcError):
    """The work was cancelled: by a person, a signal, or whoever had asked for it."""

    exit_code = INTERRUPTED
    ends_run = True


def as_error(failure: BaseException) -> NpcError:
    """Return whatever has ended some work as an error that can be counted, kept and shown."""
    import asyncio  # late: a command that only says how it is used needs none of it

    if isinstance(failure, NpcError):
        return failure
    if isinstance(failure, asyncio.CancelledError | KeyboardInterrupt):
        return InterruptedRunError("interrupted")
    return NpcError(f"a bug in npc-local or a library: {failure!r}")
