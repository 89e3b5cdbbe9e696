"""`npc-local rank`: what it prints, for people and for programs, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from npc_local.cli.main import main
from npc_local.core.config.settings import EncoderSettings
from tests.salience.golden import GOLDEN, needs_golden

PROMPT = "A photo of three red circles above one blue square"
NEGATIVES = ["one circle", "blue background", "two squares"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["rank", *arguments])


def data(*arguments: str) -> dict[str, Any]:
    result = run("--json", *arguments)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_json_has_tokens_and_the_ranking_best_first() -> None:
    found = data(PROMPT, *NEGATIVES)
    spans = {token["text"]: token["span"] for token in found["tokens"]}
    assert {text: PROMPT[slice(*span)] for text, span in spans.items()} == {
        text: text for text in ("three", "red", "circles", "above", "one", "blue", "square")
    }
    kinds = {token["text"]: token["kind"] for token in found["tokens"]}
    assert (kinds["three"], kinds["red"], kinds["circles"], kinds["above"]) == (
        "number",
        "attribute",
        "thing",
        "relation",
    )
    scores = [entry["score"] for entry in found["ranked"]]
    assert scores == sorted(scores, reverse=True)
    assert sorted(entry["negative"] for entry in found["ranked"]) == sorted(NEGATIVES)
    for entry in found["ranked"]:
        assert entry["terms"].keys() == spans.keys()
        mean = sum(entry["terms"].values()) / len(entry["terms"])
        assert entry["score"] == pytest.approx(mean, abs=1e-5)


def test_the_released_formula_is_the_sum_of_its_terms() -> None:
    found = data("--formula", "released", "--tokens", "released", PROMPT, *NEGATIVES)
    assert found["formula"] == "released"
    for entry in found["ranked"]:
        terms = entry["terms"]
        total = terms["quantities"] + terms["objects"] - terms["negative"]
        assert entry["score"] == pytest.approx(total, abs=1e-5)


def test_people_see_the_salient_words_marked_and_a_line_a_negative() -> None:
    result = run(PROMPT, *NEGATIVES)
    assert result.exit_code == 0
    head, _, *lines = result.stdout.splitlines()
    assert head == "A photo of [three] [red] [circles] [above] [one] [blue] [square]"
    expected = [entry["negative"] for entry in data(PROMPT, *NEGATIVES)["ranked"]]
    assert [line for line in lines if line.strip()] == lines
    for number, (line, negative) in enumerate(zip(lines, expected, strict=True), start=1):
        assert line.split()[0] == str(number)
        assert negative in line


def test_text_that_would_drive_the_terminal_is_shown_as_text() -> None:
    result = run("one red circle [bold]x[/bold]", "[red]red", "[link]blue")
    assert result.exit_code == 0
    assert "[link]blue" in result.stdout
    assert "[bold]" in result.stdout


def test_a_prompt_without_a_word_is_told() -> None:
    result = run("!!!", "red")
    assert result.exit_code == 0
    assert "no salient word" in result.stderr


def test_markup_of_other_tools_is_told_once_and_is_not_salient() -> None:
    result = run("--json", "two red circles, <lora:x:1> --no text <lora:x:1>", *NEGATIVES)
    assert result.stderr.count("note: markup of other tools") == 1
    assert result.stderr.count("<lora:x:1>") == 2  # once alone, once among what is ruled out
    found = json.loads(result.stdout)
    assert [token["text"] for token in found["tokens"]] == ["two", "red", "circles"]
    assert found["prompt"] == "two red circles, <lora:x:1> --no text <lora:x:1>"
    assert "note" not in run(PROMPT, *NEGATIVES).stderr


def test_a_directory_serves_as_encoder(encoder_settings: EncoderSettings) -> None:
    found = data(
        "--encoder", str(encoder_settings.path), "--tokens", "quantity", PROMPT, *NEGATIVES
    )
    assert len(found["ranked"]) == 3
    assert found["ranked"] != data(PROMPT, *NEGATIVES)["ranked"]


@needs_golden
def test_the_command_prints_the_authors_numbers() -> None:
    case = json.loads((GOLDEN / "salience_released_code.json").read_text())[0]
    encoder = str(GOLDEN / "text_encoder")
    options = ("--encoder", encoder, "--formula", "released", "--tokens", "released")
    found = data(*options, case["prompt"], *case["candidates"])
    assert [entry["negative"] for entry in found["ranked"]] == case["ranked"]
    for entry in found["ranked"]:
        expected = case["scores"][entry["negative"]]["score"]
        assert entry["score"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--encoder", "nowhere", PROMPT, "red"], 2, "known: flux-dev, sd35-large, shapes"),
        (["--encoder", "https://example.org/t5", PROMPT, "red"], 2, "known: flux-dev"),
        (["", "red"], 3, "the prompt is empty"),
        ([PROMPT, "  "], 3, "a negative prompt is empty"),
        ([PROMPT, "\x1b[31mred"], 3, "a negative prompt has the control character U+001B"),
        ([PROMPT, "a\udcffb"], 3, "a negative prompt has the control character U+DCFF"),
        (["cat " * 10_000, "red"], 3, "at most 2,000 are allowed"),
        ([PROMPT], 2, "NEGATIVE"),
    ],
)
def test_mistakes_are_told(arguments: list[str], code: int, said: str) -> None:
    result = run(*arguments)
    assert result.exit_code == code
    assert said in result.output
    assert "Traceback" not in result.output


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    result = run("--encoder", str(tmp_path), PROMPT, "red")
    assert result.exit_code == 5
    assert "no text encoder" in result.output


def test_an_encoder_that_is_not_there_is_named() -> None:
    result = run("--encoder", "flux-dev", PROMPT, "red")
    assert result.exit_code == 5
    assert "FLUX.1-dev" in result.output


def test_a_missing_parser_gives_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        "npc_local.salience.rules.spacy_model._is_installed", lambda name: name == "spacy"
    )
    result = run("--tokens", "parser", "a melting clock", "water")
    assert result.exit_code == 2
    assert "python -m spacy download en_core_web_sm" in result.output
    assert "Traceback" not in result.output
