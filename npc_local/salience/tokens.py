"""The salient tokens T(p) of a prompt (paper, section 3); each rule that finds them is a module."""

from __future__ import annotations

from typing import Literal

from npc_local.core.prompt_markup import read
from npc_local.core.records import SalientToken
from npc_local.salience.rules.quantity import counted, covers
from npc_local.salience.rules.released import released

Rule = Literal["auto", "released", "quantity", "parser"]


def salient_tokens(
    prompt: str, rule: Rule = "auto", spacy_model: str | None = None
) -> tuple[SalientToken, ...]:
    """Return T(p) in the prompt's order, each place once: "cat cat" has two tokens.

    `released` has an order of its own, is the only rule with tokens that the prompt does not say,
    and reads markup of other tools as words. Apart from it, the result is empty only if the prompt
    has no word outside such markup.

    Args:
        prompt: any text.
        rule: "quantity" needs no model; "parser" needs spaCy; "auto" is "quantity" where that rule
            understands every word, else "parser"; "released" is the authors' code.
        spacy_model: for the parser: an installed package or a directory; None for spaCy's small
            English model.

    Raises:
        ConfigError: spaCy or its model is needed and not installed.
        ModelFilesError: the model is needed and cannot be used.
    """
    if rule == "released":
        return released(prompt)
    said = read(prompt).blanked
    if rule == "quantity" or (rule == "auto" and covers(said)):
        return counted(said)
    if not any(character.isalnum() for character in said):
        return ()

    from npc_local.salience.rules.parser import parsed
    from npc_local.salience.rules.spacy_model import load

    return parsed(said, load(spacy_model))
