"""Files of prompts: what they may look like, and every bad line named before any work."""

from __future__ import annotations

import csv
import io
import json
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npc_local.core.errors import ConfigError, ModelFilesError, NpcError, PromptError
from npc_local.core.prompts import is_control
from npc_local.run.prompt_file import STDIN, Order, check_orders, read_content, read_prompts

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
        ("p.txt", b"a\nb\xff", ConfigError, "p.txt, line 2: not UTF-8; save it as UTF-8"),
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
        ("p.yaml", "a", ConfigError, "p.yaml: must end in .txt, .jsonl, .csv or .tsv"),
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
    with pytest.raises(ConfigError, match=r"none\.txt: no such file"):
        read_prompts(tmp_path / "none.txt", 0)


# ---- what other programs write -------------------------------------------------------------------

ROWS = [("id", "Prompt", "Seed"), ("a", "two dogs, one cat", "3"), ("b", "Gänse; drei", "")]
WANTED = (Order(1, "two dogs, one cat", 3, "a"), Order(2, "Gänse; drei", 7, "b"))


def table(delimiter, rows=ROWS):
    file = io.StringIO()
    csv.writer(file, delimiter=delimiter).writerows(rows)
    return file.getvalue()


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p"])
def test_a_table_is_read_however_it_was_saved(tmp_path, encoding, delimiter, name):
    assert read(tmp_path, name, table(delimiter).encode(encoding)) == WANTED


@pytest.mark.parametrize("name", ["p.txt", "p.jsonl", "p"])
def test_text_is_read_in_every_encoding_with_a_mark(tmp_path, name):
    text = '{"prompt": "Gänse"}' if name != "p.txt" else "Gänse"
    for encoding in ("utf-8-sig", "utf-16", "utf-32"):
        assert read(tmp_path, name, text.encode(encoding)) == (Order(1, "Gänse", 7),)


@pytest.mark.parametrize("column", ["prompt", "Prompt", " PROMPT ", "text", "Text", "caption"])
def test_the_prompt_may_be_called_as_other_tools_call_it(tmp_path, column):
    assert read(tmp_path, "p.csv", f"n;{column}\n1;a cat\n") == (Order(1, "a cat", 7),)
    line = json.dumps({column: "a cat", "Seed": 3})
    assert read(tmp_path, "p.jsonl", line) == (Order(1, "a cat", 3),)


def test_of_several_names_the_first_counts(tmp_path):
    assert read(tmp_path, "p.csv", "caption,text,prompt\nc,t,p\n") == (Order(1, "p", 7),)
    assert read(tmp_path, "p.csv", "caption,text\nc,t\n") == (Order(1, "t", 7),)


def test_what_a_spreadsheet_leaves_behind_is_passed_over(tmp_path):
    text = "sep=;\nprompt;seed;;\na cat;3;;\n;;;\ntwo dogs;;;\n"
    assert read(tmp_path, "p.csv", text) == (Order(1, "a cat", 3), Order(2, "two dogs", 7))
    with pytest.raises(ConfigError, match="line 5: 5 fields, where the header has 2"):
        read(tmp_path, "p.csv", text.replace("two dogs;;;", "two dogs;;;;x"))


def test_what_has_no_suffix_tells_what_it_is(tmp_path):
    assert read(tmp_path, "p", "prompt\na cat, a dog\n") == (
        Order(1, "prompt", 7),
        Order(2, "a cat, a dog", 7),
    )
    assert read(tmp_path, "p", '\n{"text": "a cat"}\n') == (Order(1, "a cat", 7),)
    assert read(tmp_path, "p", "id\tcaption\n1\ta cat\n") == (Order(1, "a cat", 7, "1"),)


@given(st.lists(TEXTS, min_size=1, max_size=5), st.sampled_from([",", ";", "\t"]), st.booleans())
def test_whatever_a_prompt_holds_survives_a_table(tmp_path_factory, texts, delimiter, wide):
    rows = [("id", "prompt"), *((str(n), text) for n, text in enumerate(texts))]
    content = table(delimiter, rows).encode("utf-16" if wide else "utf-8")
    orders = read(tmp_path_factory.getbasetemp(), "p.csv", content)
    assert [order.prompt for order in orders] == [text.strip() for text in texts]


@pytest.mark.parametrize(
    ("content", "prompts"),
    [
        ("a neon logo, text\na cat, red hat\n", ["a neon logo, text", "a cat, red hat"]),
        ("a prompt, text, and more\n", ["a prompt, text, and more"]),
        ("text, a cat and a dog\nb\n", ["text, a cat and a dog", "b"]),
        ("{red|blue} cat\n{ two | three } dogs\n", ["{red|blue} cat", "{ two | three } dogs"]),
        ("prompt,tag\na cat,x\n", ["a cat"]),
        ("Text;Seed\na cat;3\n", ["a cat"]),
        ('{"prompt": "a cat"}\n', ["a cat"]),
    ],
)
def test_a_prompt_that_looks_like_a_header_or_an_object_is_a_prompt(tmp_path, content, prompts):
    assert [order.prompt for order in read(tmp_path, "p", content)] == prompts


def test_quotes_inside_a_cell_between_tabs_are_letters(tmp_path):
    table = 'prompt\tseed\n"hello" sign\t3\na "big" cat\t4\n'
    assert [order.prompt for order in read(tmp_path, "p.tsv", table)] == [
        '"hello" sign',
        'a "big" cat',
    ]
    whole = 'prompt\tseed\n"two\tcats"\t3\n'
    assert [order.prompt for order in read(tmp_path, "p.tsv", whole)] == ["two\tcats"]


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_utf_16_without_a_mark_is_known_by_its_spaces(tmp_path, encoding):
    content = "кот и пёс\nдва кота\n".encode(encoding)  # noqa: RUF001
    assert [order.prompt for order in read(tmp_path, "p.txt", content)] == ["кот и пёс", "два кота"]


def test_of_two_columns_or_fields_of_one_name_the_first_counts(tmp_path):
    [order] = read(tmp_path, "p.jsonl", '{"prompt": "a", "Prompt": "b"}')
    assert order.prompt == "a"


def test_lines_that_only_look_empty_are_passed_over(tmp_path):
    [order] = read(tmp_path, "p.csv", "\n   \nprompt,seed\n  \na cat,3\n")
    assert order == Order(1, "a cat", 3)


def test_a_pipe_is_read_once(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    threading.Thread(target=pipe.write_text, args=["a cat\n"], daemon=True).start()
    content = read_content(pipe)
    assert read_prompts(pipe, 7, content) == (Order(1, "a cat", 7),)


def test_standard_input_is_named_as_such(monkeypatch):
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"a cat\n")))
    assert read_prompts(STDIN, 7) == (Order(1, "a cat", 7),)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(ConfigError, match="standard input: no prompt in it"):
        read_prompts(STDIN, 7)
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(ConfigError, match="standard input: cannot be read"):
        read_content(STDIN)


# ---- whether anybody can use them ----------------------------------------------------------------


class Picky:
    """Reads what has no x in it."""

    def accepts(self, prompt):
        if "x" in prompt:
            raise PromptError(f"{prompt!r} has an x", "The world has no x.")


def test_all_that_nobody_can_use_is_named_and_what_is_known_is_said_once():
    orders = [Order(n, "x" * (n % 2 + 1), 7, line=n + 4) for n in range(1, 31)]
    with pytest.raises(PromptError) as refusal:
        check_orders(Path("p.txt"), orders, [Picky(), Picky()])
    lines = str(refusal.value).splitlines()
    assert lines[0] == "p.txt, line 5: 'xx' has an x"
    assert lines[9].startswith("p.txt, line 14: ")
    assert lines[10:] == ["and 20 more lines", "The world has no x."]


def test_what_all_can_use_passes_and_a_reader_that_cannot_read_ends_it():
    class Blind:
        def accepts(self, prompt):
            raise ModelFilesError("no parser")

    check_orders(Path("p.txt"), [Order(1, "a", 7)], [Picky()])
    with pytest.raises(ModelFilesError, match="no parser"):
        check_orders(Path("p.txt"), [Order(1, "a", 7)], [Picky(), Blind()])
