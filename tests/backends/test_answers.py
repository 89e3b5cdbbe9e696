"""What a chat server's answer is worth: read whatever its form, asked for again, or an error."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.backends.answers import DoesNotFit, read_completion
from npc_local.core.errors import BackendError

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
WORDS = TEXT.filter(lambda text: text.strip())
THOUGHT = st.builds(lambda text: {"type": "thinking", "thinking": [{"text": text}]}, TEXT)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["choices", "message", "content", "finish_reason", "type", "text"]),
            inner,
        )
    ),
)


def body(content, finish="stop", **message):
    choice = {"message": {"content": content, **message}, "finish_reason": finish}
    return json.dumps({"choices": [choice], "usage": {"completion_tokens": 5, "odd": "x"}})


@given(st.lists(WORDS, min_size=1), st.lists(THOUGHT), st.sampled_from(["text", "output_text"]))
def test_a_text_in_parts_is_the_text_whatever_was_thought_between_them(texts, thoughts, kind):
    parts = [{"type": kind, "text": text} for text in texts]
    for place, thought in enumerate(thoughts):
        parts.insert(2 * place, thought)
    assert read_completion(body(parts)).whole(9) == "".join(texts)


@given(TEXT, st.sampled_from(["length", "repetition"]))
def test_what_did_not_end_by_itself_is_asked_for_again_whatever_it_says(text, finish):
    completion = read_completion(body(text, finish))
    with pytest.raises(DoesNotFit):
        completion.whole(9)
    assert completion.tokens == {"completion_tokens": 5}, "they cost, all the same"


@given(WORDS, st.text(min_size=1) | st.none() | st.integers())
def test_only_an_answer_that_is_called_complete_counts(text, finish):
    completion = read_completion(body(text, finish))
    if finish == "stop":
        assert completion.whole(9) == text
    else:
        with pytest.raises((BackendError, DoesNotFit)):
            completion.whole(9)


@given(JSON)
def test_any_other_json_is_an_answer_or_an_error_and_never_a_bug(data):
    for answer in (data, {"choices": [data]}, {"choices": [{"message": data}]}):
        with suppress(BackendError, DoesNotFit):
            read_completion(json.dumps(answer)).whole(9)
