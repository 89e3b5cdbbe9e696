"""Vectors of many texts at once against each text by itself, for every kind of encoder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from npc_local.core.config.settings import EncoderSettings
from npc_local.core.errors import ModelFilesError
from npc_local.salience.encoders.text_encoder import Text, TextEncoder
from npc_local.salience.find_encoder import encoder_in
from tests.salience.golden import GOLDEN, needs_golden

WORDS = ["red", "cat", "two", "clocks", "a", "dining table", "unheard-of", "left", ""]
SENTENCES = [
    "two cats",
    "a photo of three red clocks on the left and one cat",
    "wooden table in a very dark room with many other things and nothing else to be seen",
]
TEXTS = [*(Text(text, True) for text in SENTENCES), *(Text(word, False) for word in WORDS)]


def t5(flux: Path, _folder: Path) -> EncoderSettings:
    return EncoderSettings(path=flux, device="cpu")


def clip(flux: Path, _folder: Path) -> EncoderSettings:
    return EncoderSettings(
        kind="clip", path=flux, text_encoder="text_encoder", tokenizer="tokenizer", device="cpu"
    )


def decoder(flux: Path, folder: Path) -> EncoderSettings:
    """A Qwen3 with random weights, saved as its makers do: model and tokenizer side by side."""
    from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

    tokenizer = AutoTokenizer.from_pretrained(flux / "tokenizer_2")
    torch.manual_seed(0)
    model = Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return EncoderSettings(
        kind="decoder", path=folder, text_encoder=".", tokenizer=".", device="cpu"
    )


@pytest.fixture(scope="module", params=[t5, clip, decoder], ids=lambda make: make.__name__)
def settings(
    request: pytest.FixtureRequest,
    encoder_settings: EncoderSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> EncoderSettings:
    make: Callable[[Path, Path], EncoderSettings] = request.param
    return make(encoder_settings.path, tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(settings: EncoderSettings) -> TextEncoder:
    return TextEncoder.load(settings)


@torch.no_grad()
def alone(encoder: TextEncoder, text: Text) -> torch.Tensor:
    """The mean over one text's own hidden states: no batch, no padding, no mask."""
    ids = encoder.tokenizer(text.text, add_special_tokens=text.sentence).input_ids
    if not ids:
        return torch.zeros(encoder.width)
    states = encoder.model(input_ids=torch.tensor([ids])).last_hidden_state
    mean: torch.Tensor = states[0].mean(dim=0)
    return mean


def check_vectors(encoder: TextEncoder) -> None:
    single = torch.stack([alone(encoder, text) for text in TEXTS])
    torch.testing.assert_close(encoder.vectors(TEXTS), single, atol=1e-5, rtol=0)


def test_all_at_once_equals_each_alone(encoder: TextEncoder) -> None:
    check_vectors(encoder)


@needs_golden
def test_all_at_once_equals_each_alone_on_the_golden_encoder() -> None:
    check_vectors(TextEncoder.load(encoder_in(GOLDEN / "text_encoder")))


def test_attention_that_adds_its_mask_gives_the_same_vectors(
    encoder_settings: EncoderSettings,
) -> None:
    """As T5 does before transformers 5.1, and wherever a user asks for eager attention."""
    encoder = TextEncoder.load(encoder_settings)
    encoder.model.set_attn_implementation("eager")
    assert encoder.model.config._attn_implementation == "eager"
    check_vectors(encoder)


def test_a_pass_takes_what_the_budget_allows_for_its_own_width(
    encoder_settings: EncoderSettings,
) -> None:
    loaded = TextEncoder.load(encoder_settings)
    encoder = TextEncoder(loaded.tokenizer, loaded.model, memory_gib=0.01)
    long = [Text(f"{number} " + "two cats " * 200, True) for number in range(20)]
    with counting(encoder) as shapes:
        encoder.vectors([*long, *TEXTS])
    assert len(shapes) > 1
    for rows, width in shapes:
        assert rows == 1 or rows * width <= encoder._tokens_at_once(width)


def test_little_memory_means_more_passes_and_the_same_vectors(encoder: TextEncoder) -> None:
    small = TextEncoder(encoder.tokenizer, encoder.model, memory_gib=1e-9)
    many = [Text(f"{sentence} {number}", True) for number in range(9) for sentence in SENTENCES]
    with counting(encoder) as generous:
        expected = encoder.vectors(many)
    with counting(encoder) as frugal:
        torch.testing.assert_close(small.vectors(many), expected, atol=1e-5, rtol=0)
    assert len(frugal) > len(generous)


def test_a_word_is_no_sentence(settings: EncoderSettings, encoder: TextEncoder) -> None:
    sentence, word = encoder.vectors([Text("cat", True), Text("cat", False)])
    adds = (
        encoder.tokenizer("cat").input_ids
        != encoder.tokenizer("cat", add_special_tokens=False).input_ids
    )
    assert torch.allclose(sentence, word, atol=1e-3) is not adds


@hypothesis_settings(deadline=None, max_examples=30)
@given(words=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=12))
def test_order_and_company_change_nothing(encoder: TextEncoder, words: list[Text]) -> None:
    alone_first = {text: encoder.vectors([text])[0] for text in dict.fromkeys(words)}
    expected = torch.stack([alone_first[text] for text in words])
    torch.testing.assert_close(encoder.vectors(words), expected, atol=1e-5, rtol=0)


def test_a_t5_is_given_no_padding(encoder_settings: EncoderSettings) -> None:
    encoder = TextEncoder.load(encoder_settings)
    with counting(encoder) as shapes:
        encoder.vectors(TEXTS)
    ids = [
        encoder.tokenizer(text.text, add_special_tokens=text.sentence).input_ids for text in TEXTS
    ]
    assert shapes == [(1, sum(map(len, ids)))]


def test_texts_of_the_same_tokens_have_the_very_same_vector(encoder: TextEncoder) -> None:
    company = [Text(f"{sentence} {number}", True) for number in range(9) for sentence in SENTENCES]
    found = encoder.vectors([Text("two cats", True), *company, Text("  two   cats ", True)])
    assert torch.equal(found[0], found[-1])


def test_a_long_text_is_cut_where_the_encoder_ends(encoder: TextEncoder) -> None:
    long = "two cats " * 400
    ids = encoder.tokenizer(long, truncation=True, max_length=encoder.max_tokens).input_ids
    assert len(ids) == encoder.max_tokens < encoder.length(long)
    with torch.no_grad():
        expected = encoder.model(input_ids=torch.tensor([ids])).last_hidden_state[0].mean(dim=0)
    found = encoder.vectors([Text("cat", False), Text(long, True)])[1]
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_no_texts_no_vectors(encoder: TextEncoder) -> None:
    assert encoder.vectors([]).shape == (0, encoder.width)
    assert encoder.vectors([Text("", False)]).tolist() == [[0.0] * encoder.width]


def test_bfloat16_gives_float32_vectors_close_to_those_of_float32(
    settings: EncoderSettings, encoder: TextEncoder
) -> None:
    half = TextEncoder.load(settings.model_copy(update={"dtype": "bfloat16"}))
    assert half.model.dtype == torch.bfloat16
    found, expected = half.vectors(TEXTS), encoder.vectors(TEXTS)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, atol=0.05, rtol=0.05)
    assert not torch.equal(found, expected)


def test_the_directory_alone_tells_the_encoder(settings: EncoderSettings) -> None:
    found = encoder_in(settings.path)
    if settings.kind == "clip":  # the same directory has a T5, which goes first
        assert (found.kind, found.text_encoder) == ("t5", "text_encoder_2")
    else:
        parts = (settings.kind, settings.text_encoder, settings.tokenizer)
        assert (found.kind, found.text_encoder, found.tokenizer) == parts


def test_a_model_that_is_no_text_encoder_is_refused_when_it_is_loaded(
    encoder_settings: EncoderSettings, tmp_path: Path
) -> None:
    from transformers import AutoTokenizer, SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=32,
        patch_size=16,
    )
    SiglipVisionModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(encoder_settings.path / "tokenizer_2").save_pretrained(tmp_path)
    with pytest.raises(ModelFilesError, match="cannot be used as a text encoder"):
        TextEncoder.load(encoder_in(tmp_path))


def test_a_pipeline_without_the_part_is_told(encoder_settings: EncoderSettings) -> None:
    class Pipe:
        tokenizer_2 = object()
        text_encoder_2 = None

    with pytest.raises(ModelFilesError, match="the pipeline has no text_encoder_2"):
        TextEncoder.of_pipeline(encoder_settings, Pipe())


class counting:
    """The shapes that the model is given while inside."""

    def __init__(self, encoder: TextEncoder) -> None:
        self._model = encoder.model
        self._shapes: list[tuple[int, int]] = []

    def __enter__(self) -> list[tuple[int, int]]:
        def seen(_module: object, _args: object, inputs: dict[str, Any]) -> None:
            self._shapes.append(tuple(inputs["input_ids"].shape))

        self._handle = self._model.register_forward_pre_hook(seen, with_kwargs=True)
        return self._shapes

    def __exit__(self, *_exception: object) -> None:
        self._handle.remove()
