"""The batched scorer against one text at a time, and against plain arithmetic."""

from __future__ import annotations

import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from npc_local.errors import ModelFilesError
from npc_local.salience.scorer import T5Scorer
from npc_local.settings import EncoderSettings

PROMPT = "a photo of three red clocks on the left and one cat"
NEGATIVES = ["one clock", "wooden table in a very dark room with many other things", "red", PROMPT]
GOLDEN = (
    Path(os.environ.get("NPC_GOLDEN", Path(__file__).parents[3] / "shared" / "golden"))
    / "text_encoder"
)


@pytest.fixture(scope="module")
def scorer(encoder_settings: EncoderSettings) -> T5Scorer:
    return T5Scorer(encoder_settings)


@pytest.fixture
def damaged(encoder_settings: EncoderSettings, tmp_path: Path) -> EncoderSettings:
    """Settings of a copy of the encoder, to be damaged."""
    copy = Path(shutil.copytree(encoder_settings.path, tmp_path / "copy"))
    return encoder_settings.model_copy(update={"path": copy})


def parts(settings: EncoderSettings) -> tuple[Any, Any]:
    from transformers import AutoTokenizer, T5EncoderModel

    return (
        AutoTokenizer.from_pretrained(settings.path / settings.tokenizer),
        T5EncoderModel.from_pretrained(settings.path / settings.text_encoder),
    )


@torch.no_grad()
def alone(tokenizer: Any, model: Any, text: str, special: bool) -> torch.Tensor:
    """The mean over one text's own hidden states: no batch, no padding, no mask."""
    ids = tokenizer(text, add_special_tokens=special, return_tensors="pt").input_ids
    mean: torch.Tensor = model(ids).last_hidden_state[0].mean(dim=0)
    return mean


def check_encode(settings: EncoderSettings) -> None:
    tokenizer, model = parts(settings)
    sentences, words = [PROMPT, *NEGATIVES[:3]], ["three", "clocks", "cat"]
    batched = T5Scorer(settings).encode(sentences, words)
    single = [alone(tokenizer, model, text, True) for text in sentences]
    single += [alone(tokenizer, model, word, False) for word in words]
    torch.testing.assert_close(batched, torch.stack(single), atol=1e-5, rtol=0)
    # A word is no sentence: without this the end token could go either way unnoticed.
    assert not torch.allclose(batched[-1], alone(tokenizer, model, "cat", True), atol=1e-3)


def test_the_batch_equals_one_text_at_a_time(encoder_settings: EncoderSettings) -> None:
    check_encode(encoder_settings)


@pytest.mark.skipif(
    not GOLDEN.is_dir(),
    reason="needs the golden T5, which is kept beside the checkout (NPC_GOLDEN names its folder)",
)
def test_the_batch_equals_one_text_at_a_time_on_the_golden_encoder() -> None:
    check_encode(EncoderSettings(path=GOLDEN, device="cpu"))


def test_scores_are_the_mean_cosine_by_plain_arithmetic(
    encoder_settings: EncoderSettings, scorer: T5Scorer
) -> None:
    tokenizer, model = parts(encoder_settings)

    def cosine(a: list[float], b: list[float]) -> float:
        dot = sum(x * y for x, y in zip(a, b, strict=True))
        return dot / math.hypot(*a) / math.hypot(*b)

    expected = []
    positive = alone(tokenizer, model, PROMPT, True).tolist()
    tokens = ["three", "red", "clocks", "left", "one", "cat"]
    for negative in NEGATIVES[:3]:
        vector = alone(tokenizer, model, negative, True).tolist()
        direction = [x - y for x, y in zip(positive, vector, strict=True)]
        cosines = [cosine(direction, alone(tokenizer, model, w, False).tolist()) for w in tokens]
        expected.append(sum(cosines) / len(cosines))
    assert scorer.score(PROMPT, NEGATIVES[:3]) == pytest.approx(expected, abs=1e-5)


def test_the_prompt_itself_scores_zero(scorer: T5Scorer) -> None:
    assert scorer.score(PROMPT, NEGATIVES)[3] == 0.0


def test_scores_follow_their_negatives(scorer: T5Scorer) -> None:
    first, second, third, _ = scorer.score(PROMPT, NEGATIVES)
    again = scorer.score(PROMPT, [NEGATIVES[2], NEGATIVES[0], NEGATIVES[2], NEGATIVES[1]])
    assert again == pytest.approx([third, first, third, second], abs=1e-5)
    assert len({first, second, third}) == 3


def test_one_batch_with_each_text_once(scorer: T5Scorer, monkeypatch: pytest.MonkeyPatch) -> None:
    _, model = scorer._encoder
    shapes = []
    run = model.forward

    def forward(*arguments: Any, **inputs: Any) -> Any:
        shapes.append(inputs["input_ids"].shape[0])
        return run(*arguments, **inputs)

    monkeypatch.setattr(model, "forward", forward)
    scorer.score("two cats", ["red", "red", "two cats"])
    assert shapes == [4]  # "two cats", "red", two, cats


def test_no_negatives_no_scores(scorer: T5Scorer) -> None:
    assert scorer.score(PROMPT, []) == []


@hypothesis_settings(
    deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(prompt=st.text(max_size=40), negatives=st.lists(st.text(max_size=40), max_size=3))
def test_scores_are_finite_for_any_text(
    scorer: T5Scorer, prompt: str, negatives: list[str]
) -> None:
    scores = scorer.score(prompt, negatives)
    assert len(scores) == len(negatives)
    assert all(math.isfinite(score) and abs(score) <= 1 + 1e-5 for score in scores)


def test_a_shared_encoder_gives_the_same_scores(
    encoder_settings: EncoderSettings, scorer: T5Scorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, model = parts(encoder_settings)
    monkeypatch.setattr("transformers.T5EncoderModel.from_pretrained", None)
    shared = T5Scorer.sharing(encoder_settings, lambda: (tokenizer, model))
    assert shared.score(PROMPT, NEGATIVES) == scorer.score(PROMPT, NEGATIVES)


@pytest.mark.parametrize(
    "file", ["text_encoder_2/model.safetensors", "text_encoder_2/config.json", "tokenizer_2"]
)
def test_the_fingerprint_changes_with_any_file_of_the_encoder(
    encoder_settings: EncoderSettings, damaged: EncoderSettings, file: str
) -> None:
    before = T5Scorer(damaged).fingerprint()
    assert before == T5Scorer(encoder_settings).fingerprint()  # wherever the files are
    changed = damaged.path / file
    if changed.is_dir():
        changed /= "tokenizer.json"
    content = bytearray(changed.read_bytes())
    content[-2] ^= 1  # the last byte but one: JSON files end in a brace or a newline
    changed.write_bytes(content)
    assert T5Scorer(damaged).fingerprint() != before


def test_the_fingerprint_leaves_the_rest_of_the_pipeline_out(damaged: EncoderSettings) -> None:
    before = T5Scorer(damaged).fingerprint()
    shutil.rmtree(damaged.path / "transformer")
    assert T5Scorer(damaged).fingerprint() == before


def test_the_fingerprint_changes_with_the_settings(encoder_settings: EncoderSettings) -> None:
    half = encoder_settings.model_copy(update={"dtype": "bfloat16"})
    assert T5Scorer(half).fingerprint() != T5Scorer(encoder_settings).fingerprint()


@pytest.mark.parametrize("gone", ["tokenizer_2", "text_encoder_2"])
def test_a_missing_part_is_named(damaged: EncoderSettings, gone: str) -> None:
    shutil.rmtree(damaged.path / gone)
    with pytest.raises(ModelFilesError, match=gone):
        T5Scorer(damaged)


def test_truncated_weights_are_named(damaged: EncoderSettings) -> None:
    weights = damaged.path / "text_encoder_2" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    with pytest.raises(ModelFilesError, match=r"model\.safetensors: damaged"):
        T5Scorer(damaged)


def test_weights_that_lack_a_layer_are_refused(damaged: EncoderSettings) -> None:
    config = damaged.path / "text_encoder_2" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"num_layers": 3}))
    with pytest.raises(ModelFilesError, match=r"block\.2"):
        T5Scorer(damaged).score(PROMPT, NEGATIVES)
