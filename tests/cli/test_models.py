"""The page in docs is the registry, and the command prints it in three ways."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from npc_local.cli.main import main
from npc_local.cli.models import page
from npc_local.generator.families import FAMILIES, REFUSED

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "models.md"


def test_the_page_in_docs_is_the_registry():
    assert DOCS.read_text() == page(), "run: npc-local models --markdown > docs/reference/models.md"


def test_the_page_names_every_class():
    for name in [*(family.pipeline for family in FAMILIES), *REFUSED]:
        assert f"`{name}`" in page()


@pytest.mark.parametrize("flags", [[], ["--markdown"], ["--json"]])
def test_the_command_prints_every_class(flags):
    result = CliRunner().invoke(main, ["models", *flags], env={"COLUMNS": "200"})
    assert result.exit_code == 0
    for name in [*(family.pipeline for family in FAMILIES), *REFUSED]:
        assert name in result.output


def test_json_is_one_object():
    result = CliRunner().invoke(main, ["models", "--json"])
    content = json.loads(result.output)
    assert len(content["supported"]) == len(FAMILIES)
    assert {entry["pipeline"] for entry in content["refused"]} == set(REFUSED)
