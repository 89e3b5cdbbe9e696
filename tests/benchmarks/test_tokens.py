"""`python -m benchmarks tokens`: labels and their refusals, measures by hand, what is printed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.tokens.command import tokens as command
from benchmarks.tokens.labels import (
    FAMILIES,
    OTHER,
    Labelled,
    load,
    parse_marked,
    read_labels,
    read_prompts,
)
from benchmarks.tokens.score import Counts, coverage, misses, score
from npc_local.core.errors import ConfigError
from npc_local.core.records import SalientToken
from npc_local.salience import tokens as salience

SETS = ("dev", "test", "second")
KINDS = ("number", "thing", "attribute", "relation", "action")
DATA = Path(__file__).parents[3] / "shared" / "data"


def token(prompt, text, kind="thing"):
    start = prompt.index(text)
    return SalientToken(text.lower(), kind, (start, start + len(text)))


def labelled(group, marked):
    prompt, found = parse_marked(marked)
    return Labelled(group, prompt, found)


# What the command's tests put in place of the rules: words of more than six letters are things.
def long_words(prompt):
    return tuple(
        token(prompt, word) for word in dict.fromkeys(prompt.split()) if len(word.strip(".,:")) > 6
    )


# ---------------------------------------------------------------- marks


def test_marks_give_the_prompt_and_its_spans():
    prompt, found = parse_marked("A ⟦attribute:Dark green⟧ ⟦thing:bus⟧ [8k]")
    assert prompt == "A Dark green bus [8k]"
    assert found == (
        SalientToken("dark green", "attribute", (2, 12)),
        SalientToken("bus", "thing", (13, 16)),
    )


PIECE = st.tuples(
    st.sampled_from((None, *KINDS)),
    st.text(st.characters(codec="utf-8", exclude_characters="⟦⟧"), min_size=1),
).filter(lambda piece: piece[1] == piece[1].strip() != "")


@given(st.lists(PIECE, min_size=1))
def test_marked_prompts_come_back(pieces):
    marked = " ".join(text if kind is None else f"⟦{kind}:{text}⟧" for kind, text in pieces)
    prompt, found = parse_marked(marked)
    assert prompt == " ".join(text for _, text in pieces)
    assert [(t.kind, prompt[t.span[0] : t.span[1]]) for t in found] == [
        piece for piece in pieces if piece[0]
    ]


GOOD = '{"group": "counting", "marked": "⟦number:two⟧ ⟦thing:cats⟧"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"group": "counting", "marked": "a ⟦thing:red ⟦thing:cat⟧⟧"}', "a mark inside a mark"),
        ('{"group": "counting", "marked": "a ⟦thing:cat"}', "not closed"),
        ('{"group": "counting", "marked": "a cat⟧"}', "⟧ without ⟦"),
        ('{"group": "counting", "marked": "a ⟦colour:red⟧ cat"}', "no known kind"),
        ('{"group": "counting", "marked": "a ⟦cat⟧"}', "no known kind"),
        ('{"group": "counting", "marked": "a ⟦thing:⟧"}', "empty or has blanks"),
        ('{"group": "counting", "marked": "a ⟦thing:cat ⟧"}', "empty or has blanks"),
        ('{"group": "counting", "marked": " "}', "the prompt is empty"),
        ('{"group": "countign", "marked": "a cat"}', "unknown group 'countign'"),
        ('{"group": "counting"}', "must be"),
        ('{"group": "counting", "marked": 3}', "must be"),
        ('{"group": "counting", "marked": "a", "by": "me"}', "must be"),
        ("[]", "must be a JSON object"),
        ("{", "no JSON"),
        ("", "no JSON"),
        ('{"group": "size", "marked": "two ⟦thing:cats⟧"}', "stands twice"),
    ],
)
def test_a_malformed_line_is_refused_with_its_place(tmp_path, line, reason):
    file = tmp_path / "labels.jsonl"
    file.write_text(f"{GOOD}\n{line}\n{GOOD}\n", "utf-8")
    with pytest.raises(ConfigError) as error:
        read_labels(file)
    assert str(error.value).startswith(f"{file}: line 2: ")
    assert reason in str(error.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.jsonl: cannot be read"):
        read_labels(tmp_path / "none.jsonl")


# ---------------------------------------------------------------- the labels that come along


@pytest.mark.parametrize("name", SETS)
def test_a_set_has_prompts_of_every_group(name):
    items = load(name)
    assert len(items) >= 100
    assert {item.group for item in items} == set(FAMILIES["all"])


@pytest.mark.parametrize("name", SETS)
def test_labels_are_whole_words_in_order_with_nothing_around(name):
    for item in load(name):
        last = 0
        for label in item.tokens:
            start, end = label.span
            text = item.prompt[start:end]
            assert text.strip() == text != "", item
            assert label.text == text.lower()
            assert last <= start, item
            around = item.prompt[max(start - 1, 0) : start], item.prompt[end : end + 1]
            assert not any(beside.isalnum() or beside == "-" for beside in around), item
            last = end


@pytest.mark.parametrize("name", SETS)
def test_every_prompt_has_a_label_and_every_kind_is_used(name):
    items = load(name)
    assert all(item.tokens for item in items)
    assert {label.kind for item in items for label in item.tokens} == set(KINDS)


def plain(prompt):
    return " ".join(prompt.lower().strip(" .").split())


def test_sets_share_no_prompt():
    prompts = [plain(item.prompt) for name in SETS for item in load(name)]
    assert len(set(prompts)) == len(prompts)


@pytest.mark.skipif(not DATA.is_dir(), reason="the benchmarks' prompts are not beside the project")
def test_no_prompt_is_a_benchmarks():
    files = sorted(DATA.glob("*.jsonl"))
    benchmark = {plain(prompt) for file in files for prompt in read_prompts(file)}
    assert len(benchmark) > 400
    assert not benchmark & {plain(item.prompt) for name in SETS for item in load(name)}


# ---------------------------------------------------------------- measures

COUNTED = labelled("counting", "A photo of ⟦number:two⟧ ⟦thing:teddy bears⟧")
OTHERWISE = labelled("verbs", "A ⟦thing:dog⟧ ⟦action:jumps⟧ ⟦relation:over⟧ it")


def predicted(prompt):
    """Six tokens for `COUNTED`, one of them said twice and one never said; one for the other."""
    if prompt == OTHERWISE.prompt:
        return (token(prompt, "dog"),)
    return (
        token(prompt, "two", "number"),  # exact, right kind
        token(prompt, "bears"),  # name of a labelled span
        SalientToken("bear", "thing", token(prompt, "bears").span),  # the same span once more
        token(prompt, "photo"),  # too much
        token(prompt, "A", "attribute"),  # too much
        SalientToken("1", "number", None),  # outside
    )


def test_measures_are_those_reckoned_by_hand():
    found = score((COUNTED, OTHERWISE), predicted)
    # Exact: "two" of two, bears, photo, A; labelled: two, teddy bears.
    # Words: two, bears hit of two, bears, photo, A; salient: two, teddy, bears.
    assert found["quantity"].exact == Counts(hits=1, predicted=4, labelled=2)
    assert found["quantity"].words == Counts(hits=2, predicted=4, labelled=3)
    assert (found["quantity"].outside, found["quantity"].outside_prompts) == (1, 1)
    assert found["non-quantity"].exact == Counts(hits=1, predicted=1, labelled=3)
    assert found["non-quantity"].words == Counts(hits=1, predicted=1, labelled=3)
    assert found["non-quantity"].outside_prompts == 0
    assert found["all"].as_dict() == {
        "prompts": 2,
        "exact": {"precision": 2 / 5, "recall": 2 / 5, "f1": 2 / 5},
        "words": {"precision": 3 / 5, "recall": 3 / 6, "f1": pytest.approx(6 / 11)},
        "kind": 1.0,
        "outside": {"tokens": 1, "prompts": 1},
    }


def test_kind_is_a_share_of_the_exact_hits():
    def extract(prompt):
        return (token(prompt, "two", "thing"), token(prompt, "teddy bears"), token(prompt, "A"))

    assert score((COUNTED,), extract)["all"].kind == 1 / 2


def test_a_hyphen_or_an_apostrophe_keeps_a_word_whole():
    item = labelled("names", "a ⟦thing:dog⟧'s ⟦attribute:heart-shaped⟧ ⟦thing:tag⟧")
    found = score((item,), lambda prompt: (token(prompt, "dog's"), token(prompt, "heart")))
    assert found["all"].words == Counts(hits=2, predicted=2, labelled=3)
    assert found["all"].exact == Counts(hits=0, predicted=2, labelled=3)


def test_nothing_predicted_is_zero_not_an_error():
    found = score((COUNTED,), lambda prompt: ())
    assert found["all"].as_dict()["exact"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}
    assert found["all"].kind == 0.0
    assert found["non-quantity"].prompts == 0


@pytest.mark.parametrize("name", SETS)
def test_the_labels_themselves_score_full_marks(name):
    items = load(name)
    answers = {item.prompt: item.tokens for item in items}
    found = score(items, answers.__getitem__)
    assert all((one.exact.f1, one.words.f1, one.kind) == (1, 1, 1) for one in found.values())
    assert found["quantity"].prompts + found["non-quantity"].prompts == found["all"].prompts
    assert found["non-quantity"].prompts == sum(item.group in OTHER for item in items)
    assert misses(items, answers.__getitem__, 10) == ()


def test_misses_come_worst_first_and_no_more_than_asked():
    worst, second = misses((OTHERWISE, COUNTED), predicted, 5)
    assert (worst.prompt, worst.missed) == (COUNTED.prompt, ("teddy bears",))
    assert worst.too_much == ("A", "photo", "bears")
    assert (second.missed, second.too_much) == (("jumps", "over"), ())
    assert misses((OTHERWISE, COUNTED), predicted, 1) == (worst,)


def test_coverage_ranks_by_the_share_of_content_words_left():
    never_said = SalientToken("1", "number", None)
    answers = {
        "a cat": (token("a cat", "cat"),),
        "a red cat of the sea": (token("a red cat of the sea", "cat"),),
        "the cats": (token("the cats", "the"), never_said),
        "dogs and cats and birds": (never_said,),
        "with it": (),
    }
    extract = answers.__getitem__
    found = coverage(answers, extract)
    assert (found.prompts, found.without_token, found.only_function_words) == (5, 2, 1)
    assert [(one.prompt, one.words) for one in found.strangest] == [
        ("dogs and cats and birds", ("dogs", "cats", "birds")),
        ("the cats", ("cats",)),
        ("a red cat of the sea", ("red", "sea")),
    ]
    assert [one.share for one in found.strangest] == [1, 1, 2 / 3]
    assert coverage(answers, extract, most=1).strangest == found.strangest[:1]


# ---------------------------------------------------------------- files of prompts


def test_prompts_come_from_both_kinds_of_file(tmp_path):
    (tmp_path / "a.jsonl").write_text(
        '{"prompt": "one\u2028two"}\n\n{"instruction": "three"}', "utf-8"
    )
    (tmp_path / "b.txt").write_text(" a cat \n\na dog\n", "utf-8")
    assert read_prompts(tmp_path / "a.jsonl") == ("one\u2028two", "three")
    assert read_prompts(tmp_path / "b.txt") == ("a cat", "a dog")


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("a.jsonl", '{"prompt": "a"}\n{"text": "b"}', 'line 2: needs "prompt"'),
        ("a.jsonl", '{"prompt": " "}', 'line 1: needs "prompt"'),
        ("a.jsonl", "a cat", "line 1: no JSON"),
        ("a.txt", "\n \n", "there is no prompt in it"),
        ("a.csv", "a cat", "prompts come as .jsonl or .txt"),
    ],
)
def test_a_file_without_prompts_is_refused(tmp_path, name, text, reason):
    (tmp_path / name).write_text(text, "utf-8")
    with pytest.raises(ConfigError) as error:
        read_prompts(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: ")
    assert reason in str(error.value)


# ---------------------------------------------------------------- the command


@pytest.fixture
def asked(monkeypatch):
    """Stand a simple rule in for all; gives the rules and spaCy models that were asked for."""
    calls = set()

    def stand_in(prompt, rule="auto", spacy_model=None):
        calls.add((rule, spacy_model))
        return long_words(prompt)

    monkeypatch.setattr(salience, "salient_tokens", stand_in)
    return calls


def run(*arguments):
    result = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_table_has_every_rule_and_family_of_each_set(asked):
    lines = run().splitlines()
    assert [line for line in lines if "hand-labelled" in line] == [
        f"Set {name!r}, {len(load(name))} hand-labelled prompts, in percent." for name in SETS
    ]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines if line[:3] != "|--"]
    rows = [tuple(row[1:3]) for row in cells if len(row) > 3 and row[1] != "rule"]
    rules = ("released", "quantity", "parser", "auto")
    assert rows == [(rule, family) for rule in rules for family in FAMILIES] * 3
    shown = next(row for row in cells if row[1:3] == ["parser", "all"])
    found = score(load("dev"), long_words)["all"]
    assert shown[3:6] == [
        f"{100 * share:.1f}"
        for share in (found.exact.precision, found.exact.recall, found.exact.f1)
    ]
    assert shown[10] == f"0 of {found.prompts}"


def test_json_has_the_same_and_one_set_is_one(asked):
    found = json.loads(run("--set", "test", "--json", "--show", "3", "--spacy-model", "mine"))
    assert list(found["sets"]) == ["test"]
    assert (
        found["sets"]["test"]["quantity"]["all"] == score(load("test"), long_words)["all"].as_dict()
    )
    assert len(found["misses"]["test"]) == 3
    assert found["prompts"] is None
    assert asked == {("released", None), ("quantity", None), ("parser", "mine"), ("auto", "mine")}


def test_show_prints_what_was_missed_and_what_was_too_much(asked):
    worst = misses(load("dev"), long_words, 1)[0]
    text = run("--set", "dev", "--show", "1")
    assert f"[{worst.group}] {worst.prompt}\n    missed:   {', '.join(worst.missed)}\n" in text
    assert text.count("missed:") == 1


def test_prompts_of_ones_own_are_counted_and_the_strangest_shown(asked, tmp_path):
    (tmp_path / "a.txt").write_text("a cat\nelephant\n", "utf-8")
    (tmp_path / "b.jsonl").write_text('{"instruction": "a dog and an elephant"}\n', "utf-8")
    options = ("--prompts", str(tmp_path / "a.txt"), "--prompts", str(tmp_path / "b.jsonl"))
    text = run("--set", "dev", *options)
    assert "3 prompts of your files, rule parser: 1 have no token, 0 only function words." in text
    assert text.endswith(
        "100 %  a cat\n       left: cat\n 50 %  a dog and an elephant\n       left: dog\n"
    )
    found = json.loads(run("--set", "dev", "--json", *options))["prompts"]
    assert (found["prompts"], found["without_token"], len(found["strangest"])) == (3, 1, 2)


def test_a_missing_file_of_prompts_is_the_users_mistake(asked, tmp_path):
    result = CliRunner().invoke(command, ["--prompts", str(tmp_path / "none.txt")])
    assert isinstance(result.exception, ConfigError)
    assert not asked
