"""Files of prompts: what they may look like, and every bad line named before any work."""

from __future__ import annotations

import csv
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.core.errors import ConfigError, NpcError, PromptError
from npc_local.core.prompts import is_control
from npc_local.run.prompt_file import Order, read_prompts

TEXTS = st.text(min_size=1, max_size=40).filter(
    lambda text: text.strip() and not any(is_control(c) and c not in "\n\t" for c in text)
)


def read(tmp_path, name, content):
    file = tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_prompts(file, 7)


def test_a_text_file_has_a_prompt_a_line(tmp_path):
    text = "\ufeffa cat\r\n\n# a comment\n  two dogs # not one \n   \n日本"
    assert read(tmp_path, "p.txt", text) == (
        Order(1, "a cat", 7),
        Order(2, "two dogs # not one", 7),
        Order(3, "日本", 7),
    )


def test_objects_and_rows_may_have_a_seed_and_an_id(tmp_path):
    wanted = (Order(1, "a cat", 3, "x"), Order(2, "# dogs,\ntwo", 7), Order(3, "a cat", 0, "12"))
    lines = (
        '{"prompt": "a cat", "seed": 3, "id": "x", "tag": "other fields are not read"}\n\n'
        '{"prompt": "# dogs,\\ntwo"}\n{"id": 12, "seed": 0, "prompt": " a cat "}'
    )
    assert read(tmp_path, "p.jsonl", lines) == wanted
    rows = 'id,prompt,seed,tag\r\nx,a cat,3,none\r\n,"# dogs,\ntwo",,\r\n12, a cat ,0,\r\n'
    assert read(tmp_path, "P.CSV", rows) == wanted


@given(st.lists(st.tuples(TEXTS, st.integers(0, 2**63 - 1)), min_size=1, max_size=8))
def test_what_is_written_is_read(tmp_path_factory, wanted):
    folder = tmp_path_factory.mktemp("files")
    lines = "".join(json.dumps({"prompt": text, "seed": seed}) + "\n" for text, seed in wanted)
    table = io.StringIO()
    csv.writer(table).writerows([("prompt", "seed"), *wanted])
    for name, content in (("p.jsonl", lines), ("p.csv", table.getvalue())):
        found = [(order.prompt, order.seed) for order in read(folder, name, content)]
        assert found == [(text.strip(), seed) for text, seed in wanted]


@given(st.sampled_from(["p.txt", "p.jsonl", "p.csv"]), st.binary(max_size=200))
def test_any_bytes_are_prompts_or_an_error_of_ours(tmp_path_factory, name, content):
    message = None
    try:
        assert read(tmp_path_factory.getbasetemp(), name, content)
    except NpcError as error:
        message = str(error)
    assert message is None or name in message


@pytest.mark.parametrize(
    ("name", "content", "kind", "message"),
    [
        ("p.txt", "a\n\nb \x07\n", PromptError, "p.txt, line 3: the prompt has the control"),
        ("p.txt", "a\n" + "b" * 2001, PromptError, "line 2: the prompt has 2,001 characters"),
        ("p.txt", b"a\nb\xff", ConfigError, "p.txt, line 2: not UTF-8"),
        ("p.txt", "# nothing\n", ConfigError, "p.txt: no prompt in it"),
        ("p.jsonl", "", ConfigError, "p.jsonl: no prompt in it"),
        ("p.jsonl", '{"prompt": "a"}\n[1]', ConfigError, "line 2: not a JSON object"),
        ("p.jsonl", '{"prompt": "a"', ConfigError, "line 1: not JSON"),
        ("p.jsonl", '{"promt": "a"}', ConfigError, 'line 1: needs a "prompt"'),
        ("p.jsonl", '{"prompt": 3}', ConfigError, 'line 1: needs a "prompt"'),
        ("p.jsonl", '{"prompt": " "}', PromptError, "line 1: the prompt is empty"),
        ("p.jsonl", '{"prompt": "a", "seed": -1}', ConfigError, "seed: found -1; must be"),
        ("p.jsonl", '{"prompt": "a", "seed": true}', ConfigError, "seed: found True; must be"),
        ("p.jsonl", '{"prompt": "a", "seed": 1.0}', ConfigError, "seed: found 1.0; must be"),
        ("p.jsonl", '{"prompt": "a", "id": [1]}', ConfigError, "id: found [1]; must be"),
        (
            "p.jsonl",
            '{"prompt": "a", "id": 1}\n{"prompt": "b", "id": "1"}',
            ConfigError,
            "line 2: the same id as line 1: '1'",
        ),
        ("p.csv", "promt\na\n", ConfigError, "line 1: the header must name"),
        ("p.csv", "prompt,prompt\na,b\n", ConfigError, "line 1: the header must name"),
        ("p.csv", 'prompt\n"a\nb"\n\nc,d\n', ConfigError, "line 5: 2 fields, where the header has"),
        ("p.csv", 'prompt\n"a" b\n', ConfigError, "line 2: not CSV"),
        ("p.csv", 'prompt\n"a\n', ConfigError, "line 2: not CSV"),
        ("p.csv", "prompt,seed\na,x\n", ConfigError, "line 2: seed: found 'x'; must be"),
        ("p.yaml", "a", ConfigError, "p.yaml: must end in .txt, .jsonl or .csv"),
    ],
)
def test_a_bad_file_is_refused_by_name_and_line(tmp_path, name, content, kind, message):
    with pytest.raises(kind) as refusal:
        read(tmp_path, name, content)
    assert message in str(refusal.value)


def test_all_bad_lines_are_named_up_to_ten(tmp_path):
    with pytest.raises(ConfigError) as refusal:
        read(tmp_path, "p.jsonl", '{"prompt": "fine"}\n' + "{}\n" * 13)
    lines = str(refusal.value).splitlines()
    assert [line.partition(":")[0].rpartition(" ")[2] for line in lines[:-1]] == [
        str(number) for number in range(2, 12)
    ]
    assert lines[-1] == "and 3 more lines"


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.txt: cannot be read: No such file"):
        read_prompts(tmp_path / "none.txt", 0)
