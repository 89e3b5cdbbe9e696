"""Strict rendering: nothing missing, nothing unused, values never expanded."""

from __future__ import annotations

import pytest

from npc_local.agents.templating import render

VALUES = {"prompt": "p", "caption": "c", "reason": "r", "count": 5, "kinds": "k"}


def test_missing_variable():
    values = {key: value for key, value in VALUES.items() if key != "reason"}
    with pytest.raises(ValueError, match=r"propose\.user\.txt: no value for reason"):
        render("propose.user.txt", values)


def test_unused_variable():
    with pytest.raises(ValueError, match=r"verify\.user\.txt: never uses reason"):
        render("verify.user.txt", {"prompt": "p", "claims": "c", "reason": "r"})


def test_values_are_data():
    text = render("propose.user.txt", VALUES | {"prompt": "$reason ${caption} $$", "reason": "$x"})
    assert "$reason ${caption} $$" in text
    assert "$x" in text
