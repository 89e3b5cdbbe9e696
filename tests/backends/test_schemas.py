"""One model a reply: the schema that it makes, what the lint names, what it takes and refuses."""

from __future__ import annotations

import json
from typing import Annotated, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, create_model

from npc_local.backends.schemas import (
    NonEmpty,
    ReplyData,
    Text,
    json_schema,
    lint,
    validate,
    without,
)
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


class Claim(ReplyData):
    """Words for people, and no part of what is sent."""

    text: NonEmpty
    kind: Literal["a", "b"]


class Verdict(ReplyData):
    claims: list[Claim] = Field(min_length=1, max_length=2, description="for people")
    score: Annotated[float, Field(ge=0, le=1)]
    count: int
    only: Literal["this"]
    title: Text
    tags: list[str]
    holds: bool


GOOD = {
    "claims": [{"text": "x", "kind": "b"}],
    "score": 1,
    "count": 3,
    "only": "this",
    "title": "",
    "tags": [],
    "holds": False,
}


def test_one_model_makes_the_schema_that_is_sent():
    assert json_schema(Verdict) == closed(
        claims={
            "type": "array",
            "items": closed(
                text={"type": "string", "minLength": 1},
                kind={"type": "string", "enum": ["a", "b"]},
            ),
            "minItems": 1,
            "maxItems": 2,
        },
        score=SCORE,
        count={"type": "integer"},
        only={"type": "string", "enum": ["this"]},
        title=TEXT,
        tags={"type": "array", "items": TEXT},
        holds={"type": "boolean"},
    )


def test_and_validates_what_comes_back():
    assert validate(Verdict, GOOD).claims == [Claim(text="x", kind="b")]


def test_a_model_that_some_server_would_not_take_is_a_mistake_of_ours():
    class Open(BaseModel):
        a: str

    class Either(ReplyData):
        a: int | str

    class Deep(ReplyData):
        a: Claim

    for shape, message in (
        (Open, "additionalProperties must be false"),
        (Either, "type must be one of"),
        (Deep, "nested too deeply"),
    ):
        with pytest.raises(ValueError, match=message):
            json_schema(shape)


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
        (closed(a={"type": "string", "minLength": -1}), "minLength must be a count"),
        (closed(a={"type": "number", "multipleOf": 2}), "number takes no multipleOf"),
        (closed(a={"type": "number", "maximum": True}), "maximum must be a number"),
        (closed(a={"type": "string", "format": "date"}), "string takes no format"),
        (closed(a={"type": "string", "maxLength": 3}), "string takes no maxLength"),
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
        ({"score": 1.7}, "score: Input should be less than or equal to 1"),
        ({"score": "1"}, "score: Input should be a valid number"),
        ({"score": True}, "score: Input should be a valid number"),
        ({"score": None}, "score: Input should be a valid number"),
        ({"count": 3.0}, "count: Input should be a valid integer"),
        ({"count": True}, "count: Input should be a valid integer"),
        ({"holds": 1}, "holds: Input should be a valid boolean"),
        ({"only": "that"}, "only: Input should be 'this'"),
        ({"tags": "cats"}, "tags: Input should be a valid list"),
        ({"tags": [1]}, r"tags\.0: Input should be a valid string"),
        ({"claims": []}, "claims: List should have at least 1 item"),
        ({"claims": GOOD["claims"] * 3}, "claims: List should have at most 2 items"),
        ({"claims": [{"text": "x"}]}, r"claims\.0\.kind: Field required"),
        (
            {"claims": [{"text": " \n", "kind": "a"}]},
            r"claims\.0\.text: String should have at least",
        ),
        ({"claims": [{"text": "x", "kind": "c"}]}, "kind: Input should be 'a' or 'b'"),
        ({"": 1}, "Extra inputs are not permitted"),
        ({"x" * 999: 1}, "^x{60}: Extra"),
        (dict.fromkeys("vwxyz", 1), "^v: .*; w: .*; x: [^;]*; and 2 more faults$"),
    ],
)
def test_a_reply_that_does_not_fit_is_named(change, message):
    with pytest.raises(ValueError, match=message) as caught:
        validate(Verdict, GOOD | change)
    assert len(str(caught.value)) < 400


def test_withheld_keywords_go_at_every_depth_and_names_stay():
    inner = closed(minimum=SCORE)
    schema = closed(maximum=SCORE, list={"type": "array", "items": inner})
    sent = without(schema, {"minimum", "maximum"})
    number = {"type": "number"}
    assert sent == closed(maximum=number, list={"type": "array", "items": closed(minimum=number)})
    lint(sent)
    assert schema["properties"]["maximum"] == SCORE


SHAPES = {
    "string": st.just(Text) | st.just(NonEmpty),
    "boolean": st.just(bool),
    "integer": st.just(int),
    "number": st.just(Annotated[float, Field(ge=0, le=1)]),
    "enum": st.lists(st.text(min_size=1), min_size=1, unique=True).map(lambda n: Literal[tuple(n)]),
}
SCALARS = st.one_of(*SHAPES.values())
NAMES = st.from_regex(r"[a-z][a-z0-9]{0,9}", fullmatch=True)


def model(fields):
    return create_model("Made", __base__=ReplyData, **{name: (kind, ...) for name, kind in fields})


def fields(kinds):
    named = st.tuples(NAMES, kinds)
    return st.lists(named, min_size=1, max_size=5, unique_by=lambda field: field[0])


FLAT = fields(SCALARS).map(model)
LISTS = (SCALARS | FLAT).map(lambda items: Annotated[list[items], Field(min_length=1)])
MODELS = fields(SCALARS | LISTS).map(model)


@given(MODELS)
def test_whatever_a_model_asks_for_can_be_sent_answered_and_read(shape):
    schema = json_schema(shape)
    answer = json.loads(json.dumps(smallest(schema)))
    validate(shape, answer)
    for name in answer:
        with pytest.raises(ValueError, match="required"):
            validate(shape, {key: inner for key, inner in answer.items() if key != name})
