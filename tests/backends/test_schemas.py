"""The schema subset: what the lint lets through, what it names, and what a reply must then be."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.backends.schemas import check, lint, read_object, without
from tests.backends.fake_server import smallest


def closed(**properties):
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


TEXT = {"type": "string"}
SCORE = {"type": "number", "minimum": 0, "maximum": 1}
VERDICT = closed(
    claims={
        "type": "array",
        "items": closed(text=TEXT, kind={"type": "string", "enum": ["a", "b"]}),
        "minItems": 1,
        "maxItems": 2,
    },
    score=SCORE,
    count={"type": "integer"},
    word={"type": "string", "pattern": "^[a-z]+( [a-z]+){0,5}$"},
    tags={"type": "array", "items": TEXT},
    holds={"type": "boolean", "description": "does it?"},
)
GOOD = {
    "claims": [{"text": "", "kind": "b"}],
    "score": 1,
    "count": 3,
    "word": "two cats",
    "tags": [],
    "holds": False,
}


def test_the_whole_subset():
    lint(VERDICT)
    check(VERDICT, GOOD)


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({}, "schema: type must be one of object"),
        ([], "schema: type must be"),
        (TEXT, "schema: must be an object"),
        ({"type": ["object", "null"]}, "schema: type must be"),
        (closed(), "needs properties"),
        (closed(a=TEXT) | {"required": []}, "required must list all properties"),
        (closed(a=TEXT) | {"additionalProperties": True}, "additionalProperties must be false"),
        ({"type": "object", "properties": {"a": TEXT}, "required": ["a"]}, "additionalProp"),
        (closed(a=TEXT) | {"allOf": []}, "object takes no allOf"),
        (closed(a={"$ref": "#/x"}), r"schema\.a: type must be"),
        (closed(a={"anyOf": [TEXT]}), r"schema\.a: type must be"),
        (closed(a=closed(b=TEXT)), r"schema\.a: object is nested too deeply"),
        (closed(a={"type": "array"}), r"schema\.a\[\]: type must be"),
        (
            closed(a={"type": "array", "items": {"type": "array", "items": TEXT}}),
            r"schema\.a\[\]: must be an object",
        ),
        (
            closed(a={"type": "array", "items": closed(b={"type": "array", "items": TEXT})}),
            r"schema\.a\[\]\.b: array is nested too deeply",
        ),
        (closed(a={"type": "array", "items": TEXT, "uniqueItems": True}), "takes no uniqueItems"),
        (closed(a={"type": "array", "items": TEXT, "minItems": "1"}), "minItems must be a count"),
        (closed(a={"type": "number", "multipleOf": 2}), "number takes no multipleOf"),
        (closed(a={"type": "number", "maximum": True}), "maximum must be a number"),
        (closed(a={"type": "string", "format": "date"}), "string takes no format"),
        (closed(a={"type": "string", "maxLength": 3}), "string takes no maxLength"),
        (closed(a={"type": "string", "pattern": "a"}), r"pattern must start with \^"),
        (closed(a={"type": "string", "enum": []}), "enum must list string values"),
        (closed(a={"type": "string", "enum": ["a", 1]}), "enum must list string values"),
    ],
)
def test_what_no_server_should_get_is_named(schema, message):
    with pytest.raises(ValueError, match=message):
        lint(schema)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"score": 1.7}, r"reply\.score: 1\.7 is not within 0\.\.1"),
        ({"score": "1"}, r"reply\.score: must be of type number"),
        ({"score": True}, r"reply\.score: must be of type number"),
        ({"score": None}, r"reply\.score: must be of type number"),
        ({"count": 3.0}, r"reply\.count: must be of type integer"),
        ({"holds": 1}, r"reply\.holds: must be of type boolean"),
        ({"word": "Cats"}, r"reply\.word: must match"),
        ({"word": "cats\n"}, r"reply\.word: must match"),
        ({"tags": "cats"}, r"reply\.tags: must be of type array"),
        ({"tags": [1]}, r"reply\.tags\[0\]: must be of type string"),
        ({"claims": []}, r"reply\.claims: 0 items are too few"),
        ({"claims": [{"text": ""}]}, r"reply\.claims\[0\]: 'kind' missing"),
        ({"claims": [{"text": "", "kind": "c"}]}, r"kind: must be one of a, b"),
        ({"": 1}, "reply: '' extra"),
    ],
)
def test_a_reply_that_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        check(VERDICT, GOOD | change)


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


def test_withheld_keywords_go_at_every_depth_and_names_stay():
    inner = closed(minimum=SCORE)
    schema = closed(maximum=SCORE, list={"type": "array", "items": inner})
    sent = without(schema, {"minimum", "maximum"})
    number = {"type": "number"}
    assert sent == closed(maximum=number, list={"type": "array", "items": closed(minimum=number)})
    lint(sent)
    assert schema["properties"]["maximum"] == SCORE


SCALARS = st.one_of(
    st.just(TEXT),
    st.just({"type": "boolean"}),
    st.just({"type": "integer"}),
    st.just(SCORE),
    st.lists(st.text(), min_size=1).map(lambda names: {"type": "string", "enum": names}),
)
FLAT = st.dictionaries(st.text(), SCALARS, min_size=1).map(lambda names: closed(**names))
LISTS = (SCALARS | FLAT).map(lambda items: {"type": "array", "items": items, "minItems": 1})
SCHEMAS = st.dictionaries(st.text(), SCALARS | LISTS, min_size=1).map(lambda n: closed(**n))


@given(SCHEMAS)
def test_whatever_passes_the_lint_can_be_answered_and_checked(schema):
    lint(schema)
    value = smallest(schema)
    check(schema, read_object(json.dumps(value)))
    for name in value:
        with pytest.raises(ValueError, match="missing"):
            check(schema, {key: inner for key, inner in value.items() if key != name})
