"""The scorer against plain arithmetic, one text at a time; and what may not change a score."""

from __future__ import annotations

import json
import math
import shutil
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from npc_local.core.config.settings import EncoderSettings
from npc_local.core.errors import DeviceLostError, ModelFilesError
from npc_local.salience import scorer as scoring
from npc_local.salience.encoders.source import Source, from_generator
from npc_local.salience.encoders.text_encoder import Text, TextEncoder
from npc_local.salience.scorer import SalienceScorer, Scoring

PROMPT = "a photo of three red clocks on the left and one cat"
TOKENS = ["three", "red", "clocks", "left", "one", "cat"]
NEGATIVES = ["one clock", "wooden table in a very dark room with many other things", "red", PROMPT]
PAIRS = [
    (PROMPT, NEGATIVES),
    ("two cats", ["red", "one clock", "red"]),
    ("a dining table", ["chair", "one clock"]),
    ("two cats", []),
]
ANY = hypothesis_settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def encoder(encoder_settings: EncoderSettings) -> TextEncoder:
    return TextEncoder.load(encoder_settings)


@pytest.fixture
def scorer(encoder: TextEncoder) -> SalienceScorer:
    """A scorer on the tiny T5, loaded once."""
    return on(encoder)


@pytest.fixture
def damaged(encoder_settings: EncoderSettings, tmp_path: Path) -> EncoderSettings:
    """Settings of a copy of the encoder, to be damaged."""
    copy = Path(shutil.copytree(encoder_settings.path, tmp_path / "copy"))
    return encoder_settings.model_copy(update={"path": copy})


def on(encoder: TextEncoder, formula: Any = "paper", *, owned: bool = True) -> SalienceScorer:
    """Return a scorer that has seen no word yet."""
    source = Source(lambda: encoder, lambda: "tiny", owned=owned)
    return SalienceScorer(source, Scoring(formula, "quantity"))


@torch.no_grad()
def alone(encoder: TextEncoder, text: str, special: bool) -> list[float]:
    ids = encoder.tokenizer(text, add_special_tokens=special, return_tensors="pt").input_ids
    mean: list[float] = encoder.model(ids).last_hidden_state[0].mean(dim=0).tolist()
    return mean


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.hypot(*a) / math.hypot(*b)


def direction(encoder: TextEncoder, negative: str) -> list[float]:
    pairs = zip(alone(encoder, PROMPT, True), alone(encoder, negative, True), strict=True)
    return [x - y for x, y in pairs]


def test_scores_are_the_mean_cosine_by_plain_arithmetic(
    encoder: TextEncoder, scorer: SalienceScorer
) -> None:
    [found] = scorer.rank([(PROMPT, NEGATIVES[:3])])
    assert [token.text for token in found.tokens] == TOKENS
    for negative, score in zip(NEGATIVES, found.scores, strict=False):
        away = direction(encoder, negative)
        terms = {word: cosine(away, alone(encoder, word, False)) for word in TOKENS}
        assert score.terms == pytest.approx(terms, abs=1e-5)
        assert score.score == pytest.approx(sum(terms.values()) / len(terms), abs=1e-5)


def test_the_released_formula_by_plain_arithmetic(encoder: TextEncoder) -> None:
    [found] = on(encoder, "released").rank([(PROMPT, NEGATIVES[:3])])
    for negative, score in zip(NEGATIVES, found.scores, strict=False):
        away = direction(encoder, negative)
        terms = {
            "quantities": _mean(encoder, away, ["three", "one"]),
            "objects": _mean(encoder, away, ["red", "clocks", "left", "cat"]),
            "negative": cosine(away, alone(encoder, negative, False)),
        }
        assert score.terms == pytest.approx(terms, abs=1e-5)
        total = terms["quantities"] + terms["objects"] - terms["negative"]
        assert score.score == pytest.approx(total, abs=1e-5)


def _mean(encoder: TextEncoder, away: list[float], words: list[str]) -> float:
    return sum(cosine(away, alone(encoder, word, False)) for word in words) / len(words)


def test_a_word_that_is_salient_twice_counts_once(scorer: SalienceScorer) -> None:
    [twice] = scorer.rank([("one red cat and one red dog", ["table"])])
    assert list(twice.scores[0].terms) == ["one", "red", "cat", "dog"]


def test_the_prompt_itself_scores_zero(scorer: SalienceScorer) -> None:
    assert scorer.score(PROMPT, NEGATIVES)[3] == 0.0


def test_no_negatives_no_scores(scorer: SalienceScorer) -> None:
    assert scorer.score(PROMPT, []) == []
    assert scorer.rank([]) == []


@pytest.mark.parametrize("formula", ["paper", "released"])
def test_one_go_equals_one_prompt_at_a_time(encoder: TextEncoder, formula: str) -> None:
    scorer = on(encoder, formula)
    for pair, found in zip(PAIRS, scorer.rank(PAIRS), strict=True):
        [expected] = scorer.rank([pair])
        assert found.tokens == expected.tokens
        assert len(found.scores) == len(pair[1])
        for score, other in zip(found.scores, expected.scores, strict=True):
            assert score.score == pytest.approx(other.score, abs=1e-5)
            assert score.terms == pytest.approx(other.terms, abs=1e-5)


_TEXT = st.text(max_size=40)


@ANY
@given(prompt=_TEXT, negatives=st.lists(_TEXT, max_size=4), data=st.data())
def test_neither_order_nor_company_changes_a_score(
    scorer: SalienceScorer, prompt: str, negatives: list[str], data: st.DataObject
) -> None:
    expected = scorer.score(prompt, negatives)
    assert all(math.isfinite(score) and abs(score) <= 1 + 1e-5 for score in expected)
    order = data.draw(st.permutations(range(len(negatives))))
    found, _ = scorer.rank([(prompt, [negatives[index] for index in order]), PAIRS[0]])
    assert [score.score for score in found.scores] == pytest.approx(
        [expected[index] for index in order], abs=1e-4
    )


@ANY
@given(
    before=st.lists(st.sampled_from([*TOKENS, *NEGATIVES]), max_size=6),
    formula=st.sampled_from(["paper", "released"]),
)
def test_words_seen_before_change_no_score(
    encoder: TextEncoder, before: list[str], formula: Any
) -> None:
    seasoned = on(encoder, formula)
    seasoned.rank([(text, ["one clock", text]) for text in before])
    expected = on(encoder, formula).score(PROMPT, NEGATIVES)
    assert seasoned.score(PROMPT, NEGATIVES) == pytest.approx(expected, abs=1e-5)
    assert seasoned.score(PROMPT, NEGATIVES) == pytest.approx(expected, abs=1e-5)


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The words of each call to the encoder."""
    calls: list[list[str]] = []
    vectors = TextEncoder.vectors

    def counted(self: TextEncoder, texts: Any) -> torch.Tensor:
        calls.append([text.text for text in texts if not text.sentence])
        assert len(set(texts)) == len(texts)
        return vectors(self, texts)

    monkeypatch.setattr(TextEncoder, "vectors", counted)
    return calls


def test_a_word_is_encoded_once(encoder: TextEncoder, encoded: list[list[str]]) -> None:
    scorer = on(encoder)
    scorer.rank([(PROMPT, ["red", "red"]), (PROMPT, ["cat"])])
    scorer.rank([(PROMPT, ["red"]), ("two cats", ["red"])])
    assert encoded == [TOKENS, ["two", "cats"]]


def test_no_word_of_a_model_in_other_hands_is_kept(
    encoder: TextEncoder, encoded: list[list[str]]
) -> None:
    scorer = on(encoder, owned=False)
    scorer.rank([(PROMPT, ["red"])])
    scorer.rank([(PROMPT, ["red"])])
    assert encoded == [TOKENS, TOKENS]


def test_the_oldest_words_make_room(
    encoder: TextEncoder, encoded: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "_MOST_WORDS", 2)
    scorer = on(encoder)
    for prompt in ("two cats", "one dog", "one dog", "two cats"):
        scorer.rank([(prompt, ["red"])])
    assert encoded == [["two", "cats"], ["one", "dog"], [], ["two", "cats"]]


def test_another_encoder_gives_other_scores(
    encoder_settings: EncoderSettings, damaged: EncoderSettings
) -> None:
    first = SalienceScorer.open(encoder_settings).score(PROMPT, NEGATIVES)
    swap_two_rows(damaged.path / "text_encoder_2" / "model.safetensors")
    second = SalienceScorer.open(damaged).score(PROMPT, NEGATIVES)
    assert second != pytest.approx(first, abs=1e-4)


def swap_two_rows(file: Path) -> None:
    """Make another model of it, with files of the same size."""
    from safetensors.torch import load_file, save_file

    weights = load_file(file)
    table = weights["shared.weight"]
    weights["shared.weight"] = table.flip(0).contiguous()
    save_file(weights, file, metadata={"format": "pt"})


def test_a_text_that_is_cut_is_told(scorer: SalienceScorer) -> None:
    [short, long] = scorer.rank([(PROMPT, ["red"]), ("two cats " * 400, ["red"])])
    assert short.unread == 0
    assert long.unread > 0


def test_texts_are_encoded_with_so_many_threads_and_nothing_else(
    encoder_settings: EncoderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    seen = set()
    vectors = TextEncoder.vectors

    def counted(encoder: TextEncoder, texts: Sequence[Text]) -> torch.Tensor:
        seen.add(torch.get_num_threads())
        return vectors(encoder, texts)

    monkeypatch.setattr(TextEncoder, "vectors", counted)
    chosen = encoder_settings.model_copy(update={"threads": before + 1})
    SalienceScorer.open(chosen).score(PROMPT, NEGATIVES)
    assert seen == {before + 1}
    assert torch.get_num_threads() == before


def test_threads_take_turns(encoder_settings: EncoderSettings) -> None:
    scorer = SalienceScorer.open(encoder_settings)
    expected = SalienceScorer.open(encoder_settings).score(PROMPT, NEGATIVES)
    found: list[list[float]] = []
    threads = [
        threading.Thread(target=lambda: found.append(scorer.score(PROMPT, NEGATIVES)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [pytest.approx(expected, abs=1e-5)] * 4


def test_a_generators_encoder_gives_the_same_scores_and_is_not_loaded_again(
    encoder_settings: EncoderSettings, encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = SalienceScorer.open(encoder_settings).score(PROMPT, NEGATIVES)
    monkeypatch.setattr("transformers.T5EncoderModel.from_pretrained", None)

    class Pipe:
        tokenizer_2, text_encoder_2 = encoder.tokenizer, encoder.model
        _execution_device = torch.device("cpu")

    source = from_generator(encoder_settings, Pipe, None)
    shared = SalienceScorer.open(encoder_settings, source)
    assert shared.score(PROMPT, NEGATIVES) == pytest.approx(expected, abs=1e-5)
    assert shared.fingerprint() == SalienceScorer.open(encoder_settings).fingerprint()


def test_a_quantised_encoder_is_another_one(encoder_settings: EncoderSettings) -> None:
    plain = from_generator(encoder_settings, dict, None)
    bits = from_generator(encoder_settings, dict, {"kind": "bitsandbytes_4bit"})
    assert plain.identity() != bits.identity()


@pytest.mark.parametrize(
    "file", ["text_encoder_2/model.safetensors", "text_encoder_2/config.json", "tokenizer_2"]
)
def test_the_fingerprint_changes_with_any_file_of_the_encoder(
    encoder_settings: EncoderSettings, damaged: EncoderSettings, file: str
) -> None:
    before = SalienceScorer.open(damaged).fingerprint()
    assert before == SalienceScorer.open(encoder_settings).fingerprint()  # wherever the files are
    changed = damaged.path / file
    if changed.is_dir():
        changed /= "tokenizer.json"
    content = bytearray(changed.read_bytes())
    if changed.suffix == ".json":
        content += b" "  # still JSON
    else:
        content[-1] ^= 1
    changed.write_bytes(content)
    assert SalienceScorer.open(damaged).fingerprint() != before


def test_the_fingerprint_leaves_the_rest_of_the_pipeline_out(damaged: EncoderSettings) -> None:
    before = SalienceScorer.open(damaged).fingerprint()
    shutil.rmtree(damaged.path / "transformer")
    assert SalienceScorer.open(damaged).fingerprint() == before


@pytest.mark.parametrize(
    "change", [{"dtype": "bfloat16"}, {"formula": "released"}, {"tokens": "released"}]
)
def test_the_fingerprint_changes_with_the_settings(
    encoder_settings: EncoderSettings, change: dict[str, str]
) -> None:
    changed = encoder_settings.model_copy(update=change)
    before = SalienceScorer.open(encoder_settings).fingerprint()
    assert SalienceScorer.open(changed).fingerprint() != before


def test_the_fingerprint_names_the_parser_where_it_decides(
    encoder_settings: EncoderSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fingerprints() -> list[str]:
        return [
            SalienceScorer.open(encoder_settings.model_copy(update={"tokens": rule})).fingerprint()
            for rule in ("auto", "parser", "quantity", "released")
        ]

    before = fingerprints()
    monkeypatch.setattr("npc_local.salience.rules.spacy_model.version", lambda _name: "another")
    changed = [a != b for a, b in zip(before, fingerprints(), strict=True)]
    assert changed == [True, True, False, False]


@pytest.mark.parametrize("gone", ["tokenizer_2", "text_encoder_2"])
def test_a_missing_part_is_named(damaged: EncoderSettings, gone: str) -> None:
    shutil.rmtree(damaged.path / gone)
    with pytest.raises(ModelFilesError, match=gone):
        SalienceScorer.open(damaged)


def test_truncated_weights_are_named(damaged: EncoderSettings) -> None:
    weights = damaged.path / "text_encoder_2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelFilesError, match=r"model\.safetensors: damaged"):
        SalienceScorer.open(damaged)


def test_weights_that_lack_a_layer_are_refused(damaged: EncoderSettings) -> None:
    config = damaged.path / "text_encoder_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 3}))
    with pytest.raises(ModelFilesError, match=r"block\.2"):
        SalienceScorer.open(damaged).score(PROMPT, NEGATIVES)


@pytest.mark.parametrize(
    ("message", "kind"),
    [("CUDA error: an illegal memory access", DeviceLostError), ("another", RuntimeError)],
)
def test_a_gpu_that_has_failed_for_good_is_told_from_a_bug(
    scorer: SalienceScorer, monkeypatch: pytest.MonkeyPatch, message: str, kind: type[Exception]
) -> None:
    def failing(*_: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(TextEncoder, "vectors", failing)
    with pytest.raises(kind, match=message):
        scorer.score(PROMPT, NEGATIVES)
