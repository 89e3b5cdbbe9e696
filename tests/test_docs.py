"""The documentation: examples run, the reference is what the code says, links lead somewhere."""

from __future__ import annotations

import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from npc_local.core.offline.switches import SWITCHES

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*(ROOT / "docs").glob("**/*.md"), *ROOT.glob("*.md")])


def test_the_python_page_runs():
    """Without HF_HUB_OFFLINE and the like, as a reader would run it."""
    blocks = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs" / "guides" / "python.md").read_text(), re.S
    )
    assert len(blocks) == 4
    plain = {name: value for name, value in os.environ.items() if name not in SWITCHES}
    run = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=plain,
    )
    assert run.returncode == 0, run.stderr
    status = "(already-correct|corrected|best-effort)"
    expected = [
        f"{status} after \\d images",
        f"two red circles: {status}, True",
        f"three blue stars: {status}, True",
        "2 corrections",
        "26 forwards",
    ]
    lines = run.stdout.splitlines()
    assert len(lines) == len(expected)
    for pattern, line in zip(expected, lines, strict=True):
        assert re.fullmatch(pattern, line)


@pytest.fixture(scope="module")
def made_pages():
    return runpy.run_path(str(ROOT / "scripts" / "write_reference.py"))["pages"]()


@pytest.mark.parametrize("name", ["command_line.md", "models_toml.md", "models.md"])
def test_the_reference_is_what_the_code_says(made_pages, name):
    assert (REFERENCE / name).read_text() == made_pages[name], (
        "run: python scripts/write_reference.py"
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        if re.match(r"\w+:", target):
            continue
        file = page.parent / path if path else page
        assert file.exists(), f"{page}: {target}"
        if heading and file.suffix == ".md":
            titles = re.findall(r"^#+ (.*)$", file.read_text(), re.M)
            anchors = {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in titles}
            assert heading in anchors, f"{page}: {target}"


def test_every_page_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text()
    named = {(ROOT / "docs" / path).resolve() for path in re.findall(r"\]\(([^)#\s]+)", index)}
    pages = {page.resolve() for page in (ROOT / "docs").glob("*/*.md")}
    assert pages <= named


def test_every_field_of_the_record_is_described(tmp_path):
    command = [sys.executable, "-m", "npc_local", "run", "--seed", "19", "--out", "made"]
    prompt = "A photo of a black star, a purple triangle, and a green square"
    subprocess.run([*command, prompt], cwd=tmp_path, check=True, capture_output=True)
    record = json.loads((tmp_path / "made" / "correction.json").read_text())
    page = (REFERENCE / "correction_json.md").read_text()
    described = set(re.findall(r"`(\w+)`", page))

    def fields(value):
        if isinstance(value, dict):
            return {*value, *(name for inner in value.values() for name in fields(inner))}
        if isinstance(value, list):
            return {name for inner in value for name in fields(inner)}
        return set()

    record = {
        key: {} if key in ("profile", "versions", "network") else record[key] for key in record
    }
    assert fields(record) <= described
    assert re.findall(r"^\| `(\w+)`", page, re.M)[0] == "prompt"
