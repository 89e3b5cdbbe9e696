"""JSON is read to the letter, or refused with what is wrong."""

from __future__ import annotations

import pytest

from npc_local.core.strict_json import read_object


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not JSON"),
        ('```json\n{"a": 1}\n```', "not JSON"),
        ('<think>hm</think>{"a": 1}', "not JSON"),
        ('{"a": 1} and that is it', "not JSON: Extra data at character 9"),
        ('{"a": NaN}', "NaN is not JSON"),
        ('{"a": -Infinity}', "-Infinity is not JSON"),
        ('{"a": 1e999}', "beyond what a number"),
        ('{"a": 1, "a": 2}', "a key appears twice"),
        ('{"a": {"b": 1, "b": 1}}', "a key appears twice"),
        ('{"a": "\\ud800"}', "half a surrogate pair"),
        ('{"\\udfff": 1}', "half a surrogate pair"),
        ("[" * 100_000, "nested too deeply"),
        ("1" * 5000, "limit"),
        ("[1]", "not a JSON object"),
        ("null", "not a JSON object"),
        ('"1"', "not a JSON object"),
    ],
)
def test_json_is_strict(text, message):
    with pytest.raises(ValueError, match=message):
        read_object(text)


def test_blanks_around_json_are_json():
    assert read_object(' \n{"a": "\\ud83d\\ude00 é"}\n') == {"a": "😀 é"}
