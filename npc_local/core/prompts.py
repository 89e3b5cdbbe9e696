"""What a prompt may be: any text a model can read. It is data: never a path, never markup.

Whether a backend understands the text is left to that backend.
"""

from __future__ import annotations

import unicodedata

from npc_local.core.errors import PromptError

MAX_CHARACTERS = 2_000


def check_prompt(text: str, what: str = "the prompt") -> str:
    """Return the prompt without outer whitespace.

    Args:
        text: as it was given.
        what: it is, for messages.

    Raises:
        PromptError: nothing is left, more than `MAX_CHARACTERS` are, or a character is a control
            character (newline and tab excepted) or half of a surrogate pair.
    """
    prompt = text.strip()
    if not prompt:
        raise PromptError(f"{what} is empty; say what the image should show")
    if len(prompt) > MAX_CHARACTERS:
        raise PromptError(
            f"{what} has {len(prompt):,} characters; at most {MAX_CHARACTERS:,} are allowed"
        )
    for position, character in enumerate(prompt):
        if is_control(character) and character not in "\n\t":
            raise PromptError(
                f"{what} has the control character U+{ord(character):04X} "
                f"at position {position}; remove it"
            )
    return prompt


def is_control(character: str) -> bool:
    """Tell whether no tokenizer should be given this: control characters and lone surrogates."""
    return unicodedata.category(character) in {"Cc", "Cs"}
