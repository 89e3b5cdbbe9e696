"""Which words may be the same word in another form: plurals however odd, verbs, spellings.

Benchmarks and people write "tvs", "sheeps", "knifes" and "skises" beside proper plurals, so is
taken back to all that it may come from, and two words are the same if they share one of these. Such
bases are not always words themselves. What a phrase is made of is the cleaner's matter.
"""

from __future__ import annotations

import re
import unicodedata
from functools import lru_cache

from npc_local.agents.counts import in_digits

_STEPS = 3  # "skises" is of "skis", which is of "ski"
_VOWELS = frozenset("aeiouy")
# A verb of one syllable doubles its last letter: "staring" is of "stare", "starring" of "star".
_DOUBLING = re.compile(r"(?:[^aeiou]*qu|[^aeiou]+|)[aeiouy][^aeiouywx]")
# Endings of a plural and of its singular: words, alone and in compounds ("grandchildren"), ...
_IRREGULAR_NOUNS = (
    *(("men", "man"), ("children", "child"), ("feet", "foot"), ("teeth", "tooth")),
    *(("geese", "goose"), ("mice", "mouse"), ("lice", "louse"), ("oxen", "ox")),
    *(("knives", "knife"), ("wives", "wife"), ("lives", "life"), ("people", "person")),
)
# ... and endings, of which at least two letters are left.
_ENDINGS = (
    *(("ves", "f"), ("ies", "y"), ("ies", "ey"), ("aves", "aff"), ("ae", "a"), ("eaux", "eau")),
    *(("ices", "ex"), ("ices", "ix"), ("yces", "yx"), ("nges", "nx"), ("zzes", "z")),
    *(("a", "um"), ("mata", "ma"), ("i", "us"), ("i", "o"), ("podes", "pus")),
)
_IRREGULAR_WORDS = """
    dice die, criteria criterion, phenomena phenomenon, strata stratum, spectra spectrum,
    polyhedra polyhedron, automata automaton, genera genus, corpora corpus, ganglia ganglion,
    mitochondria mitochondrion, cherubim cherub, seraphim seraph, brethren brother, pence penny,
    passersby passerby, passers-by passerby, passer-by passerby, octopii octopus,
    cactii cactus, gasses gas,
    sat sit, ran run, stood stand, held hold, flew fly, flown fly, wore wear, worn wear, rode ride,
    ridden ride, ate eat, eaten eat, lying lie, lain lie, dying die, tying tie, drew draw,
    drawn draw, broke break, broken break, does do, goes go, went go, gone go,
    swam swim, swum swim, sang sing, sung sing, drank drink, drunk drink, drove drive, driven drive,
    wrote write, written write, threw throw, thrown throw, fell fall, fallen fall, caught catch,
    bought buy, brought bring, taught teach, built build, slept sleep, swept sweep, wept weep,
    leapt leap, knelt kneel, lit light, hung hang, swung swing, clung cling, dug dig, spun spin,
    shot shoot, froze freeze, frozen freeze, spoken speak, stolen steal, woven weave,
    tore tear, torn tear, bitten bite, hid hide, hidden hide, blew blow, blown blow,
    grew grow, grown grow, shook shake, shaken shake, took take, taken take, gave give, given give,
    came come, sank sink, sunk sink, sprang spring, sprung spring, stuck stick, struck strike,
    made make, met meet, paid pay, sold sell, sent send, spent spend, bent bend, told tell,
    won win, fed feed, fought fight, shone shine, risen rise, chose choose, chosen choose,
    began begin, begun begin, laid lay, kept keep, lost lose, sewn sew
"""
_IRREGULAR: dict[str, str] = dict(map(str.split, _IRREGULAR_WORDS.split(",")))
# These end in s and are no plural, and without their s they are another word or none.
_NO_PLURALS_TEXT = """
    across always as axis basis bus cannabis canvas chassis crisis debris gas gratis has his
    ibis iris is its lens mantis metropolis news oasis pelvis perhaps portcullis series species
    tennis this trellis us was yes
"""
_NO_PLURALS = frozenset(_NO_PLURALS_TEXT.split())
# These are of no verb, or of one that is not the noun it looks like.
_NO_VERBS_TEXT = """
    bowling boxing ceiling clothing earring evening herring morning pudding stocking
    rugged wicked
"""
_NO_VERBS = frozenset(_NO_VERBS_TEXT.split())
# Of these, "-ies" is of "-y" only.
_NOT_OF_EY = frozenset({"allies", "stories"})
_SPELLINGS = (("gray", "grey"), ("colour", "color"))


@lru_cache(maxsize=4096)
def bases(word: str) -> frozenset[str]:
    """Return all that a word, in any form and spelling, may come from, itself included."""
    word = _plain(word)
    forms = frontier = {in_digits(word)}
    for _ in range(_STEPS):
        frontier = {base for form in frontier for base in _before(form)} - forms
        forms = forms | frontier
    return frozenset(forms)


def ends_in_s(word: str) -> bool:
    """Tell whether a word has the ending of plurals, and of verbs."""
    return len(word) > 2 and word.endswith("s") and not _keeps_its_s(word)


def _plain(word: str) -> str:
    """Return a word in one spelling: no case, accents, possessive or dots ("u.s.")."""
    decomposed = unicodedata.normalize("NFKD", word.casefold())
    letters = "".join(sign for sign in decomposed if not "\u0300" <= sign <= "\u036f")
    word = unicodedata.normalize("NFC", letters).removesuffix("'s").replace(".", "")
    for spelling, other in _SPELLINGS:
        word = word.replace(spelling, other)
    return word


def _before(word: str) -> set[str]:
    """Return what a word may be an inflected form of, one step back."""
    irregular = {_IRREGULAR[word]} if word in _IRREGULAR else set()
    return _singulars(word) | _verbs(word) | irregular


def _singulars(word: str) -> set[str]:
    singulars = {
        word.removesuffix(plural) + singular
        for endings, left in ((_IRREGULAR_NOUNS, 0), (_ENDINGS, 2))
        for plural, singular in endings
        if word.endswith(plural) and len(word) >= len(plural) + left
        if singular != "ey" or word not in _NOT_OF_EY
    }
    if word.endswith("s") and len(word) > 2 and word not in _NO_PLURALS and not _is_double(word):
        singulars.add(word[:-1])
    if word.endswith("es") and len(word) > 3:
        stem = word[:-2]
        if stem.endswith(("s", "x", "z", "ch", "sh")) or (stem.endswith("o") and len(stem) > 3):
            singulars.add(stem)
        singulars.add(f"{stem}is")  # oases
    return singulars


def _is_double(word: str) -> bool:
    """Tell whether a word has its -ss of its own: "glass", but not "buss", "canvass", "glasss"."""
    own = word[-3:-2] in {"a", "e", "o"} and word[:-1] not in _NO_PLURALS
    return word.endswith("ss") and own


def _keeps_its_s(word: str) -> bool:
    return word in _NO_PLURALS or word.endswith(("ss", "us"))


def _verbs(word: str) -> set[str]:
    """Return the verbs of which a word may be a form in -ing or -ed."""
    verbs: set[str] = set()
    for ending in ("ing", "ed"):
        base = word.removesuffix(ending)
        if base == word or len(base) < 3 or not _VOWELS & set(base) or word in _NO_VERBS:
            continue
        if not _DOUBLING.fullmatch(base):
            verbs.add(base)
        if base[-1] == "u" or base[-1] not in _VOWELS:
            verbs.add(f"{base}e")
        if base[-1] == base[-2]:
            verbs.add(base[:-1])
        if ending == "ed" and base.endswith("i"):
            verbs.add(f"{base[:-1]}y")  # carried
    return verbs
