"""What a key is made of: data and pixels as they are, code by what it does."""

from __future__ import annotations

import hashlib
import math

import pytest
from PIL import Image

from npc_local.core import hashing
from npc_local.core.hashing import canonical, code_digest, digest
from npc_local.core.records import Claim


def test_a_key_says_what_an_image_shows_and_not_how_it_is_kept():
    red, blue = Image.new("RGB", (2, 3), "red"), Image.new("RGB", (2, 3), "blue")
    tall = Image.new("RGB", (3, 2), "red")
    marked = red.copy()
    marked.info["comment"] = "made today"
    assert digest({"image": red}) == digest({"image": marked})
    keys = [digest({"image": image}) for image in (red, blue, tall, red.convert("L"))]
    assert len(set(keys)) == 4


def test_a_key_is_the_hash_of_sorted_ascii_json():
    text = canonical({"b": (1, 2.5), "a": Claim("ü", True)})
    assert text == '{"a":{"holds":true,"kind":"other","text":"\\u00fc"},"b":[1,2.5]}'
    assert digest({"b": 1}) == hashlib.sha256(b'{"b":1}').hexdigest()
    with pytest.raises(ValueError, match=r"not JSON compliant"):
        canonical({"score": math.nan})


# ---------------------------------------------------------------- code

CODE = '''\
"""What it is for."""

from __future__ import annotations

import os

from npc_local.core.costs import Cost, count
from npc_local.words import clean

LIMIT = 3


class Judge:
    """Judges."""

    def judge(self, text: str) -> bool:
        """Judge one text."""
        from npc_local.agents import ask

        name = "" + clean(text)  # as it is
        return ask(f"{name}!", Cost(0), count=count) > LIMIT and bool(os.sep)


class Empty(Exception):
    """Nothing beside this."""


async def wait() -> None:
    """Wait."""
'''


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a module, a template, and something that has no say."""
    for name, text in (("agents/judge.py", CODE), ("agents/judge.txt", "Judge."), ("x.py", "1")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(hashing, "_PACKAGE", tmp_path)
    return tmp_path


def of(*parts):
    return code_digest.__wrapped__(*parts)  # as a new process would compute it


@pytest.mark.parametrize(
    ("old", "new"),
    [
        pytest.param("# as it is", "# or otherwise", id="comment"),
        pytest.param('"""Judges."""', '"""Decides."""', id="docstring of a class"),
        pytest.param('"""Judge one text."""\n', '"""Say\n        what it is."""\n', id="function"),
        pytest.param('        """Judge one text."""\n', "", id="docstring gone"),
        pytest.param('"""What it is for."""', '"""Another."""', id="docstring of the module"),
        pytest.param('"""Nothing beside this."""', "pass", id="body that is a docstring alone"),
        pytest.param(" -> bool:\n", " -> bool:\n\n", id="blank line"),
        pytest.param("Cost(0), count=count", "Cost(0),\n            count=count", id="layout"),
        pytest.param('"" + clean', "'' + clean", id="quotes"),
        pytest.param('"" + clean', 'u"" + clean', id="a prefix that means nothing"),
        pytest.param("npc_local.words", "npc_local.agents.clean", id="import from a moved module"),
        pytest.param(
            "from npc_local.core.costs import Cost, count\nfrom npc_local.words import clean",
            "from npc_local.agents.clean import clean\nfrom npc_local.core import Cost\n"
            "from npc_local.core.meter import count",
            id="imports in another order",
        ),
        pytest.param("from npc_local.agents import", "from npc_local.ask import", id="late import"),
    ],
)
def test_what_is_not_executed_leaves_the_digest_as_it_was(package, old, new):
    before = of("agents")
    assert CODE.count(old) == 1
    if new == "pass":
        new = '"""Something."""'
    (package / "agents/judge.py").write_text(CODE.replace(old, new))
    assert of("agents") == before


def test_a_file_may_move_and_be_renamed(package):
    before = of("agents")
    (package / "core/deep").mkdir(parents=True)
    (package / "agents/judge.py").rename(package / "core/deep/verdict.py")
    assert of("core", "agents") == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("LIMIT = 3", "LIMIT = 4"),
        ("Cost(0)", "Cost(1)"),
        ("Cost(0)", "Cost(None)"),
        ("Cost(0)", "Cost(0.0)"),
        ("Cost(0)", "Cost(False)"),
        ('"" + clean', '" " + clean'),
        ("> LIMIT", ">= LIMIT"),
        ("!", "?"),
        ("LIMIT and bool", "LIMIT or bool"),
        ("import os", "import sys as os"),
        ("import clean", "import other as clean"),
        ("count=count", "total=count"),
        ("class Empty(Exception)", "class Empty(ValueError)"),
        ("async def wait", "def wait"),
    ],
)
def test_what_is_executed_changes_the_digest(package, old, new):
    before = of("agents")
    assert old in CODE
    (package / "agents/judge.py").write_text(CODE.replace(old, new))
    assert of("agents") != before


def test_each_part_that_is_named_has_a_say_and_no_other(package):
    before = of("agents")
    (package / "x.py").write_text("2")
    assert of("agents") == before
    (package / "agents/judge.txt").write_text("Judge!")
    changed = of("agents")
    (package / "agents/more.py").write_text("pass")
    assert len({before, changed, of("agents")}) == 3
    assert of("agents/*.py") != of("agents")
    with pytest.raises(ValueError, match="'rolls' names no source file"):
        of("rolls")
