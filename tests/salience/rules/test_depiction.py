"""A picture that is a thing in the scene is salient; what the picture itself is stays out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.salience.tokens import Rule, salient_tokens

RULES: tuple[Rule, ...] = ("auto", "parser")


def salient(prompt: str, rule: Rule) -> set[str]:
    return {word for token in salient_tokens(prompt, rule) for word in token.text.split()}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("prompt", "wanted"),
    [
        ("a wooden picture frame and a leather chair", "wooden picture frame leather chair"),
        ("two dogs, one painting, three cups", "two dogs one painting three cups"),
        ("a glass photo album and a metal lamp", "glass photo album metal lamp"),
        (
            "The rectangular painting was hung above the beige sofa.",
            "rectangular painting beige sofa",
        ),
        ("The square painting was next to the round mirror.", "square painting round mirror"),
        ("five paintings", "five paintings"),
        ("two microwaves and one painting", "two microwaves one painting"),
        ("four paintings and two cars", "four paintings two cars"),
        ("two men, one painting and two bowls", "painting men"),
        ("a plastic chair and a wooden picture frame", "wooden picture frame"),
        ("a painting on the wall above a sofa", "painting wall sofa"),
        ("a framed photograph on a wooden desk", "framed photograph desk"),
        ("a woman holding a photo of her son", "woman photo son"),
        ("a t-shirt with a picture of a cat", "t-shirt picture cat"),
        ("a living room with a large painting of a ship", "painting ship"),
        ("a child drawing a picture", "child picture"),
        ("the picture on the wall is crooked", "picture wall crooked"),
        ("A man stands in a hall. A painting of a ship hangs behind him.", "painting ship"),
        ("a stack of old photographs and a camera", "stack old photographs camera"),
        ("a wall covered with posters and photos", "wall posters photos"),
        ("a room with striped wallpaper", "room striped wallpaper"),
        ("a dog, a painting, and a cup", "dog painting cup"),
        ("a painting, a lamp and a chair", "painting lamp chair"),
        ("a picture and a lamp", "picture lamp"),
        ("a golden frame with a portrait inside", "golden frame portrait"),
        ("a poster of a movie on a brick wall", "brick wall"),
        ("a museum visitor looking at a portrait", "visitor portrait"),
        ("a bookshelf with a photo frame beside a vase", "photo frame"),
        ("a photo in a silver frame on a piano", "photo silver frame piano"),
        ("a print shop with two printers", "print shop"),
        ("a mural on a brick wall", "mural brick wall"),
        ("a person is looking at a mural and admiring its colors", "mural"),
        ("two paintings of ships", "two paintings ships"),
        ("a wooden easel with an unfinished painting", "easel painting"),
        ("a yellow picture frame to the left of a red couch", "yellow picture frame red couch"),
        ("picture frame and vase", "picture frame vase"),
        ("paintings on a white wall", "paintings white wall"),
        ("a person taking a photo of a sunset", "person sunset"),
        ("an anime poster and a desk", "anime poster desk"),
        ("a man painting a wall", "man painting wall"),
        ("three photo albums on a shelf", "three photo albums shelf"),
        ("a collage of photos on a fridge", "collage fridge"),
        ("a poster of a rock band on a bedroom wall", "poster rock band bedroom wall"),
        ("two lamps and posters of ships on the door", "lamps posters ships door"),
        ("a framed photo of a dog on a piano", "framed photo dog piano"),
        # It is all there is.
        ("a small framed photograph", "small framed photograph"),
        ("a golden picture", "golden picture"),
        ("an old wooden picture, 8k", "old wooden picture"),
        ("please draw a round portrait.", "round portrait"),
        ("painting next to a cat", "painting next to cat"),
        ("a photo lying on a desk", "photo lying desk"),
        ("drawing beside a lamp", "drawing beside lamp"),
        ("an artist sketching a portrait", "artist portrait"),
        (
            "The vibrant colors of the painting contrasted with the white wall.",
            "vibrant colors painting white wall",
        ),
        (
            "The artist painted a beautiful portrait of the woman.",
            "artist painted beautiful portrait woman",
        ),
        ("A person is holding a pencil and drawing a sketch.", "person pencil drawing sketch"),
        (
            "four rabbits, one painting, one bee and one helmet",
            "four rabbits one painting bee helmet",
        ),
        (
            "The photographer is taking pictures of the landscape.",
            "photographer taking pictures landscape",
        ),
        (
            "A man with a paintbrush is creating a masterpiece.",
            "man paintbrush creating masterpiece",
        ),
    ],
)
def test_a_picture_that_is_a_thing_is_salient_with_all_before_it(
    prompt: str, wanted: str, rule: Rule
) -> None:
    assert set(wanted.split()) <= salient(prompt, rule)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    ("prompt", "wanted", "itself"),
    [
        ("a photo of a painting on an easel", "painting easel", "photo"),
        ("a photo of two picture frames", "two picture frames", "photo"),
        ("A photo of a red picture frame and a blue clock", "red picture frame", "photo"),
        ("an oil painting of two dogs", "two dogs", "painting oil"),
        ("a photo of three cups", "three cups", "photo"),
        (
            "A detailed oil painting of a village, in the style of Monet",
            "village",
            "painting oil style",
        ),
        ("a portrait of an old sailor", "old sailor", "portrait"),
        ("a cat on a roof, oil painting", "cat roof", "painting"),
        ("a cat on a roof, digital art, 8k", "cat roof", "art"),
        ("masterpiece, best quality, portrait of a woman", "woman", "portrait"),
        ("black and white photo of a dog", "dog", "photo"),
        ("a black and white photograph of a dog", "dog", "photograph"),
        (
            "Generate an image of a kitchen. There is a kettle on the stove.",
            "kitchen kettle stove",
            "image",
        ),
        ("I want a photo where a bridge crosses a canyon", "bridge canyon", "photo"),
        ("a photo taken at night of a city", "city", "photo"),
        ("The image shows two cats.", "two cats", "image"),
        ("two cats in the picture", "two cats", "picture"),
        ("a watercolor painting, a boat on a lake", "boat lake", "painting"),
        ("a photo, two cats on a mat", "two cats", "photo"),
        ("a close-up photo of a bee", "bee", "photo close-up"),
        ("a painting in the style of Van Gogh, a field", "field", "painting"),
        ("a drawing by Picasso of a bull", "bull", "drawing"),
        ("painting of a boat", "boat", "painting"),
        (
            "a small framed picture of a horse on a nightstand, watercolor",
            "horse nightstand",
            "watercolor",
        ),
        ("a soldier taking a selfie", "soldier", "selfie"),
        ("a bowl of fruit, a still life painting", "bowl fruit", "painting"),
        ("a close-up of a painting", "painting", "close-up"),
        ("a 3D render of a fox", "fox", "render"),
        ("a sketch of a cat on paper", "cat", "sketch"),
        ("a poster of a cat sitting on a wall", "cat sitting wall", "poster"),
        ("a photo of a clock on a wall", "clock wall", "photo"),
        ("a poster of a robot, digital art", "robot", "poster"),
    ],
)
def test_what_the_picture_itself_is_stays_out(
    prompt: str, wanted: str, itself: str, rule: Rule
) -> None:
    found = salient(prompt, rule)
    assert set(wanted.split()) <= found
    assert not set(itself.split()) & found


def test_a_picture_at_the_beginning_is_a_thing_and_nobody_paints():
    tokens = salient_tokens("painting next to a cat")
    assert [(token.text, token.kind) for token in tokens if token.kind == "thing"] == [
        ("painting", "thing"),
        ("cat", "thing"),
    ]


@pytest.mark.parametrize("quoted", ['"open late"', "\xabopen late\xbb", "\u201eopen late\u201c"])
def test_lettering_is_one_thing_in_any_quotation_marks(quoted: str) -> None:
    tokens = salient_tokens(f"a red sign that says {quoted} on a wall")
    assert ("open late", "thing") in [(token.text, token.kind) for token in tokens]


PICTURES = ("painting", "picture", "photograph", "portrait", "poster", "drawing", "picture frame")
DESCRIBED = ("wooden", "small", "red", "old")
OTHERS = ("a leather chair", "two dogs", "a blue vase")
SCENES = ("two dogs", "three red cups", "a cat on a sofa")
MEDIA = ("photo", "oil painting", "pencil drawing", "digital illustration", "watercolor painting")


@given(
    picture=st.sampled_from(PICTURES),
    described=st.sampled_from(DESCRIBED),
    others=st.lists(st.sampled_from(OTHERS), min_size=1, max_size=2, unique=True),
    place=st.integers(0, 2),
    rule=st.sampled_from(RULES),
)
def test_a_described_picture_among_things_is_one_of_them(
    picture: str, described: str, others: list[str], place: int, rule: Rule
) -> None:
    things = list(others)
    things.insert(place, f"a {described} {picture}")
    *most, last = things
    assert {described, *picture.split()} <= salient(f"{', '.join(most)} and {last}", rule)


@given(
    medium=st.sampled_from(MEDIA),
    scene=st.sampled_from(SCENES),
    form=st.sampled_from(("a {0} of {1}", "{0} of {1}", "{1}, {0}", "please create a {0} of {1}")),
    rule=st.sampled_from(RULES),
)
def test_no_medium_is_salient_whatever_it_shows(
    medium: str, scene: str, form: str, rule: Rule
) -> None:
    expected = salient(scene, rule)
    assert salient(form.format(medium, scene), rule) == expected
