"""Which rule reads which prompt, and what spaCy's model needs."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from npc_local.core.errors import ConfigError, ModelFilesError
from npc_local.core.prompt_markup import read
from npc_local.salience.rules import spacy_model
from npc_local.salience.rules.parser import parsed
from npc_local.salience.rules.quantity import counted
from npc_local.salience.rules.released import released
from npc_local.salience.rules.words import FUNCTION_WORDS
from npc_local.salience.tokens import Rule, salient_tokens
from tests.salience.rules.marking import check

PROMPTS = Path(__file__).parents[3] / "shared" / "data"
COUNTED, SAID = "two red cats on the left", "a cat chasing a mouse"
RULES: tuple[Rule, ...] = ("auto", "quantity", "parser")


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Make packages as if they were not installed."""

    def hide(*names: str) -> None:
        find, load = importlib.util.find_spec, importlib.import_module

        def find_spec(name: str, package: str | None = None) -> Any:
            return None if name in names else find(name, package)

        def import_module(name: str, package: str | None = None) -> Any:
            if name in names:
                raise ModuleNotFoundError(f"No module named {name!r}")
            return load(name, package)

        monkeypatch.setattr(importlib.util, "find_spec", find_spec)
        monkeypatch.setattr(importlib, "import_module", import_module)

    return hide


@pytest.fixture
def model_copy(tmp_path: Path) -> Path:
    """A copy of the installed model, to be damaged."""
    return Path(shutil.copytree(spacy_model._find(None), tmp_path / "model"))


def test_each_rule_is_its_module() -> None:
    assert salient_tokens(SAID, "released") == released(SAID)
    assert salient_tokens(SAID, "quantity") == counted(SAID)
    assert salient_tokens(SAID, "parser") == parsed(SAID, spacy_model.load())


def test_auto_parses_only_what_the_lists_do_not_cover(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [token.text for token in salient_tokens(SAID)] == ["cat", "chasing", "mouse"]

    def refuse(_name: str | None) -> Any:
        raise AssertionError

    monkeypatch.setattr(spacy_model, "load", refuse)
    assert salient_tokens(COUNTED) == counted(COUNTED)
    assert salient_tokens("?!") == ()
    with pytest.raises(AssertionError):
        salient_tokens(SAID)


@pytest.mark.parametrize("rule", RULES)
def test_the_same_words_twice_are_two_places(rule: Rule) -> None:
    found = salient_tokens("one red cat and one red dog", rule)
    assert [token.text for token in found] == ["one", "red", "cat", "one", "red", "dog"]
    assert len(set(found)) == 6


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("prompt", "said"),
    [
        ("two foxes, <lora:add_detail:0.8>, a red house", "two foxes red house"),
        ("a cat on a sofa BREAK two lamps", "cat sofa two lamps"),
        ("a wood elf, BREAK a white background", "wood elf white background"),
        ("three clocks on a wall --ar 16:9 --no text, people", "three clocks wall"),
        ("a castle, embedding:EasyNegative", "castle"),
        ("(three red apples:1.3) on a ((wooden)) table", "three red apples wooden table"),
        ("two (dining:1.2) tables", "two dining tables"),
        ("a [cat|dog] and a {red|blue} car, a __hat__", "car"),
        ("a house, (fog:-1)", "house"),
    ],
)
def test_markup_of_other_tools_is_not_salient(rule: Rule, prompt: str, said: str) -> None:
    found = salient_tokens(prompt, rule)
    assert " ".join(token.text for token in found) == said
    for token in found:
        assert token.span is not None
        assert prompt[token.span[0] : token.span[1]].lower().startswith(token.text.split()[0])


def test_nothing_is_salient_where_all_is_markup() -> None:
    assert salient_tokens("<lora:x:1> --ar 3:2") == ()
    assert salient_tokens("{two cats|a dog}") == ()


def test_importing_the_rules_does_not_import_spacy() -> None:
    code = (
        "import sys, npc_local.salience.tokens as t, npc_local.salience.rules.parser;"
        "t.salient_tokens('two red cats'); print('spacy' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["False"]


def test_without_spacy_the_error_says_how_to_get_it(without: Any) -> None:
    without("spacy")
    with pytest.raises(ConfigError, match=r"pip install 'npc-local\[parser\]'.*\"quantity\""):
        salient_tokens(SAID)
    with pytest.raises(ConfigError, match="npc-local"):
        spacy_model.version()
    assert salient_tokens(COUNTED)


def test_without_the_model_the_error_says_how_to_get_it(without: Any) -> None:
    without(*spacy_model.PACKAGES)
    with pytest.raises(ConfigError) as caught:
        salient_tokens(SAID, "parser")
    for part in (
        "python -m spacy download en_core_web_sm",
        "scripts/download_models.sh --profile NAME --to DIR --spacy",
        "pip install --no-index DIR/wheels/en_core_web_sm-3.8.0-py3-none-any.whl",
        'tokens = "quantity"',
    ):
        assert part in str(caught.value)


def test_the_advice_is_for_the_model_that_is_wanted(without: Any) -> None:
    without("en_core_web_trf")
    with pytest.raises(ConfigError) as caught:
        salient_tokens(SAID, "parser", "en_core_web_trf")
    assert "python -m spacy download en_core_web_trf" in str(caught.value)
    assert "download en_core_web_sm" not in str(caught.value)
    assert 'tokens = "quantity" of the encoder in models.toml' in str(caught.value)
    assert "rank: --tokens quantity" in str(caught.value)


def test_a_damaged_model_is_to_be_installed_again_by_its_name(tmp_path: Path) -> None:
    model = tmp_path / "en_core_web_trf-3.8.0"
    model.mkdir()
    (model / "config.cfg").write_bytes(b"\x00")
    with pytest.raises(ModelFilesError, match="spacy download en_core_web_trf"):
        spacy_model.load(str(model))


def test_the_wheel_is_the_one_that_the_script_fetches() -> None:
    script = (Path(__file__).parents[2] / "scripts" / "download_models.sh").read_text()
    assert f"SPACY_WHEEL={spacy_model._WHEEL}" in script


def test_the_model_is_loaded_once_and_found_by_name_and_directory() -> None:
    model = spacy_model.load()
    [name] = [name for name in spacy_model.PACKAGES if spacy_model._is_installed(name)][:1]
    assert spacy_model.load(name) is model
    assert spacy_model.load(str(spacy_model._find(name))) is model
    assert "ner" not in model.pipe_names


def test_a_package_is_read_as_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "en_evil"
    shutil.copytree(spacy_model._find(None), package / "en_evil-1.0.0")
    (package / "__init__.py").write_text("raise SystemExit('ran')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert salient_tokens(SAID, "parser", "en_evil") == salient_tokens(SAID, "parser")


@pytest.mark.parametrize("name", ["en_core_web_nothing", "no/such/dir", "../x", "", "a.b"])
def test_an_unknown_model_is_refused(name: str, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((ConfigError, ModelFilesError), match="model"):
        spacy_model.load(name)


def test_a_directory_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"config\.cfg"):
        spacy_model.load(str(tmp_path))
    with pytest.raises(ModelFilesError, match=r"config\.cfg"):
        spacy_model.load("json")


def test_another_language_is_refused(tmp_path: Path) -> None:
    import spacy

    spacy.blank("de").to_disk(tmp_path / "de")
    with pytest.raises(ModelFilesError, match="'de' and has no tagger and no parser"):
        spacy_model.load(str(tmp_path / "de"))


def test_a_model_without_a_parser_is_refused(tmp_path: Path) -> None:
    import spacy

    spacy.blank("en").to_disk(tmp_path / "en")
    with pytest.raises(ModelFilesError, match="has no tagger and no parser; "):
        spacy_model.load(str(tmp_path / "en"))


@pytest.mark.parametrize("file", ["config.cfg", "parser/model", "vocab/strings.json"])
def test_a_damaged_model_is_refused(model_copy: Path, file: str) -> None:
    (model_copy / file).write_bytes(b"\x00")
    with pytest.raises(ModelFilesError, match="cannot load this model"):
        spacy_model.load(str(model_copy))


def test_the_version_changes_with_the_model(model_copy: Path) -> None:
    assert spacy_model.version(str(model_copy)) == spacy_model.version()
    other = Path(shutil.copytree(model_copy, model_copy.parent / "other"))
    (other / "meta.json").write_text("{}")
    assert spacy_model.version(str(other)) != spacy_model.version()


@pytest.mark.skipif(
    not PROMPTS.is_dir(), reason="needs the benchmarks' prompts, kept beside the checkout"
)
@pytest.mark.parametrize("rule", RULES)
def test_every_benchmark_prompt_has_content(rule: Rule) -> None:
    prompts = [
        record[field]
        for name, field in (("geneval_pp", "prompt"), ("imagine_bench", "instruction"))
        for record in map(json.loads, (PROMPTS / f"{name}.jsonl").read_text().splitlines())
    ]
    assert len(prompts) == 550
    for prompt in prompts:
        found = salient_tokens(prompt, rule)
        check(prompt, found)
        assert any(token.kind == "thing" and token.text not in FUNCTION_WORDS for token in found)


@hypothesis_settings(deadline=None, max_examples=40)
@given(st.text(max_size=40))
def test_any_text(prompt: str) -> None:
    check(read(prompt).blanked, salient_tokens(prompt))
