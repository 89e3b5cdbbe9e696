"""The only cleaner of negative prompts: what a proposer wrote, made usable or refused by name.

Synonyms of what the prompt asks for are beyond it: the proposer's instructions rule those out.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from npc_local.agents.counts import counted, is_count
from npc_local.agents.inflection import bases, ends_in_s
from npc_local.core.prompt_markup import words as words_of
from npc_local.core.prompts import is_control
from npc_local.core.records import Negative, Rejected

MAX_WORDS = 6

_NUMBERING = re.compile(r"^(?:\(?\d+[.):]|[-*\u2022\u2013\u2014])\s+")
_QUOTES = "\"'`\u201c\u201d\u2018\u00ab\u00bb"
_TRAILING = ".,;:!?\u2026"
_WORD = re.compile(
    r"(?<![^\W_])[^\W\d_](?:\.[^\W\d_])+(?![^\W_])\.?"  # "u.s."
    r"|\d{1,3}(?:,\d{3})+(?!\d)"
    r"|passers?-by(?![^\W_])"
    r"|[^\W_]+(?:'[^\W_]+)*"
)
_TOKEN = re.compile(rf"{_WORD.pattern}|[,;:.!?()\n]")
_NEGATIONS = frozenset(
    ("no", "not", "non", "none", "nor", "never", "without", "cannot", "zero", "absent", "absence")
) | {"lack", "lacks", "lacking", "devoid"}
# "cat-free", "free of cats", "dogless"; "seamless" falls with them.
_PRIVATIVE = re.compile(r"\w[-\u2010]free\b|\bfree (?:of|from)\b|\w{3}[-\u2010]?less\b")
_ONE = frozenset({"a", "an"})
_ARTICLES = _ONE | {"any", "the"}
# Where one thing's words end and another's begin; numbers and negations do so as well.
_BORDER_WORDS = """
    about above across against along among and are around as at atop before behind below beneath
    beside besides between beyond but by down during for from has have in inside into is like near
    next of off on onto or out outside over past that through to toward towards under underneath
    up upon was were where which while who whose with within
"""
_BORDERS = frozenset(_BORDER_WORDS.split())
_MAX_SKIPPED = 2
# Words of the proposer's instructions that small models echo, and what they say beside them.
_INSTRUCTIONS_TEXT = """
    negative negatives targeted untargeted prompt prompts proposal proposals kind kinds json
    instruction instructions placeholder
"""
_INSTRUCTIONS = frozenset(_INSTRUCTIONS_TEXT.split())
_BESIDE_INSTRUCTIONS_TEXT = """
    text texts list lists item items error errors word words phrase phrases name names type
    types other another more new first second next and or for of in with good likely image here
    example examples
"""
_BESIDE_INSTRUCTIONS = frozenset(_BESIDE_INSTRUCTIONS_TEXT.split())
_LABEL = re.compile(
    r"^(?:(?:un)?targeted|negatives?)(?: (?:negatives?|prompts?))? ?[:=\u2013-] ?(?=\w)"
)

# A word can come from several: "axes" is of axe or axis. These are all that it may be.
Lemmas = tuple[frozenset[str], ...]


def clean(
    negatives: Iterable[Negative], prompt: str
) -> tuple[tuple[Negative, ...], tuple[Rejected, ...]]:
    """Split proposals into usable negative prompts, in order, and rejected ones with the reason.

    Kept texts are lower-case, of 1 to `MAX_WORDS` words, positive in wording, distinct, and nothing
    that `prompt` asks for in the same words. Words are the same up to their inflection (cats, cat;
    riding, rides), numbers up to their spelling (2, two), and phrases up to their articles; but "a
    circle" is not what "two circles" asks for. Up to two words of one thing may be left out: "three
    laptops" is asked for by "three open laptops", "red circle" not by "a red star and a circle".
    """
    wanted = counted(_TOKEN.findall(_plain(words_of(prompt))))
    usable: list[Negative] = []
    rejected: list[Rejected] = []
    seen: list[Lemmas] = []
    for negative in negatives:
        text = _tidy(negative.text)
        lemmas = tuple(map(bases, _bare(counted(_WORD.findall(text)))))
        reason = _fault(text)
        if reason is None and any(_same(lemmas, other) for other in seen):
            reason = "duplicate"
        if reason is None and _asks_for(wanted, lemmas):
            reason = "the prompt asks for it"
        if reason is None:
            seen.append(lemmas)
            usable.append(replace(negative, text=text))
        else:
            rejected.append(Rejected(negative.text, reason))
    return tuple(usable), tuple(rejected)


def _tidy(text: str) -> str:
    """Lower-case, and peel off numbering, labels, quotes, markup and what trails."""
    text = _plain(text)
    while True:
        peeled = _NUMBERING.sub("", words_of(text).strip()).strip(_QUOTES).rstrip(_TRAILING)
        peeled = _LABEL.sub("", peeled.strip())
        if peeled == text:
            return re.sub(" +", " ", text)
        text = peeled


def _plain(text: str) -> str:
    """Lower-case, one form for what looks the same, and nothing that cannot be seen."""
    visible = "".join(letter for letter in text if unicodedata.category(letter) != "Cf")
    lowered = unicodedata.normalize("NFKC", visible).lower().replace("\u2019", "'")
    return unicodedata.normalize("NFKC", lowered)


def _fault(text: str) -> str | None:
    """Say what is wrong with a tidied phrase taken alone; None if nothing is."""
    if any(is_control(character) for character in text):
        return "control character"
    words = _WORD.findall(text)
    if not words:
        return "no words"
    if len(text.split()) > MAX_WORDS:
        return f"{len(text.split())} words; at most {MAX_WORDS}"
    if _echoes(words):
        return "words of the instructions: a negative prompt names something that an image can show"
    if any(_negates(word) for word in words) or _PRIVATIVE.search(text):
        return "negation: a negative prompt names what should be absent"
    return None


def _echoes(words: Sequence[str]) -> bool:
    """Tell whether words are only those of the instructions, or have one that no image shows."""
    telling = [word for word in words if word not in _BESIDE_INSTRUCTIONS | _ARTICLES]
    telling = [word for word in telling if not is_count(word)]
    echoed = [word for word in telling if word in _INSTRUCTIONS]
    return "untargeted" in words or (bool(echoed) and len(echoed) == len(telling))


def _negates(word: str) -> bool:
    return word in _NEGATIONS or word.endswith("n't")


def _asks_for(prompt: Sequence[str], phrase: Lemmas) -> bool:
    """Tell whether the words of `phrase` stand in `prompt`, in order, about one thing, not negated.

    What may stand between two of them is `_following`'s matter.
    """
    lemmas = [_asked_lemmas(word) for word in prompt]
    for start in range(len(prompt)):
        if not lemmas[start] & phrase[0] or _negated(prompt[:start]):
            continue
        ends = {start}
        for word in phrase[1:]:
            ends = {
                after for end in ends for after in _following(prompt, end) if lemmas[after] & word
            }
        if ends:
            return True
    return False


def _following(prompt: Sequence[str], at: int) -> Iterator[int]:
    """Yield where the next word of a phrase may be after `prompt[at]`.

    Articles and commas may lie between, or else `_MAX_SKIPPED` words of the same thing; both only
    after a word such as "on", where that thing begins. There are no parts of speech here: a word in
    -s, or one in -ing that does not come first, is taken for the end of a thing ("red dogs chase
    cats" and "a red dog chasing a cat" ask for no red cat).
    """
    skipped, paused = 0, False
    for index in range(at + 1, len(prompt)):
        yield index
        word = prompt[index]
        if word in _ARTICLES or not _WORD.match(word):
            paused = paused or prompt[at] not in _BORDERS
        elif (
            word in _BORDERS
            or is_count(word)
            or _negates(word)
            or ends_in_s(word)
            or (skipped and word.endswith("ing"))
        ):
            return
        else:
            skipped += 1
        if skipped > _MAX_SKIPPED or (skipped and paused):
            return


def _negated(before: Sequence[str]) -> bool:
    """Tell whether what follows these words is ruled out by them."""
    words = [word for word in before if _WORD.match(word) and word not in _ARTICLES | {"of"}]
    return bool(words) and _negates(words[-1])


def _bare(words: Sequence[str]) -> Sequence[str]:
    """Leave the articles out, except for a first "a": it is a number."""
    bare = [word for word in words if word not in _ARTICLES]
    if words and (words[0] in _ONE or not bare):
        bare.insert(0, "a" if words[0] in _ONE else words[0])
    return bare


def _asked_lemmas(word: str) -> frozenset[str]:
    """Return the lemmas of a word of the prompt: there, "a" and "one" are the same number."""
    lemmas = bases(word)
    return lemmas | {"a", "1"} if word in _ARTICLES or "1" in lemmas else lemmas


def _same(some: Lemmas, others: Lemmas) -> bool:
    """Tell whether two texts may be the same words, inflected."""
    pairs = zip(some, others, strict=False)
    return len(some) == len(others) and all(lemmas & other for lemmas, other in pairs)
