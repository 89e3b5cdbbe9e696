"""Published records: taken as they are, or refused with file, line and reason."""

from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from npc_local.bench.suites.record_files import as_line
from npc_local.bench.suites.registry import open_suite
from npc_local.core.errors import ConfigError
from tests.bench.suites.fakes import DATA, NAMES, RECORDS, published_data, write

BOTH = pytest.mark.parametrize("name", list(NAMES))


@published_data
@BOTH
def test_the_published_records_are_taken_and_kept_to_the_byte(name):
    suite = open_suite(name, DATA)
    lines = "".join(as_line(item.record) + "\n" for item in suite.items())
    assert lines.encode() == (DATA / NAMES[name]).read_bytes()
    assert [item.number for item in suite.items()] == list(range(1, len(suite.items()) + 1))


@published_data
def test_so_many_of_each_group():
    sizes = {
        name: [sum(item.group == group for item in suite.items()) for group in suite.groups]
        for name in NAMES
        for suite in [open_suite(name, DATA)]
    }
    assert sizes == {"geneval++": [40] * 7, "imagine": [90, 60, 60, 60]}


@BOTH
def test_a_file_or_its_directory_or_where_the_script_puts_it(name, tmp_path, monkeypatch):
    file = write(tmp_path / NAMES[name], RECORDS[name]())
    expected = open_suite(name, file).items()
    assert open_suite(name, tmp_path).items() == expected
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "benchmarks").mkdir()
    file.rename(tmp_path / "models" / "benchmarks" / file.name)
    assert open_suite(name).items() == expected


@BOTH
def test_what_is_not_there_is_said_with_how_to_get_it(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"models/benchmarks/{NAMES[name]}.*download_models\.sh"):
        open_suite(name)
    with pytest.raises(ConfigError, match=r"other/file: no such file"):
        open_suite(name, tmp_path / "other" / "file")


@BOTH
def test_the_fingerprint_is_of_the_records(name, tmp_path):
    records = RECORDS[name]()
    before = open_suite(name, write(tmp_path / "a", records)).fingerprint()
    assert open_suite(name, write(tmp_path / "b", records)).fingerprint() == before
    key = "prompt" if name == "geneval++" else "note"
    records[7] |= {key: "A photo of something else"}
    assert open_suite(name, write(tmp_path / "b", records)).fingerprint() != before


def refusal(name, path):
    with pytest.raises(ConfigError) as caught:
        open_suite(name, path)
    text = str(caught.value)
    assert text.startswith(str(path))
    return text.removeprefix(str(path))


@BOTH
@pytest.mark.parametrize("cut", [1, 40, 200])
def test_a_file_that_is_cut_off_in_a_record(name, tmp_path, cut):
    path = write(tmp_path / "data.jsonl", RECORDS[name]())
    whole = path.read_bytes()
    end = whole[:-1].rfind(b"\n") + 1
    path.write_bytes(whole[: end + min(cut, len(whole) - end - 2)])
    text = refusal(name, path)
    last = len(whole.splitlines())
    assert text.startswith(f", line {last}: not JSON")
    assert "download_models.sh" in text


@BOTH
def test_a_file_that_is_cut_off_between_records(name, tmp_path):
    records = RECORDS[name]()
    text = refusal(name, write(tmp_path / "data.jsonl", records[:-5]))
    assert f"{len(records) - 5} records, up to line {len(records) - 5}" in text
    assert f"where {len(records)} belong" in text
    (tmp_path / "data.jsonl").write_text("")
    assert "0 records" in refusal(name, tmp_path / "data.jsonl")


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(name=st.sampled_from(list(NAMES)), share=st.floats(0, 1, exclude_max=True))
def test_no_cut_passes_unnoticed(name, share, tmp_path):
    path = write(tmp_path / "data.jsonl", RECORDS[name]())
    whole = path.read_bytes()
    path.write_bytes(whole[: min(int(share * len(whole)), len(whole) - 2)])
    assert refusal(name, path)


FAULTS = {
    "not an object": ("[1]", "not a JSON object"),
    "a torn line": ('{"tag": "coun', "not JSON"),
    "an empty line": ("", "not JSON"),
    "a key twice": ('{"tag": "counting", "tag": "counting"}', "a key appears twice"),
}


@BOTH
@pytest.mark.parametrize("fault", list(FAULTS))
def test_a_damaged_line(name, fault, tmp_path):
    line, why = FAULTS[fault]
    lines = [json.dumps(record) for record in RECORDS[name]()]
    lines[16] = line
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(lines) + "\n")
    assert refusal(name, path).startswith(f", line 17: {why}")


def test_other_encodings_are_refused_with_their_line(tmp_path):
    path = write(tmp_path / "data.jsonl", RECORDS["imagine"]())
    path.write_bytes(path.read_bytes().replace(b"A photo of 9.", b"A photo of \xe9."))
    assert refusal("imagine", path).startswith(", line 9: not UTF-8")


ENTRY = {"class": "cat", "count": 2}
WRONG_GENEVAL = [
    ({"extra": 1}, "extra: Extra inputs"),
    ({"tag": "colour"}, "tag: Input should be 'color_attr'"),
    ({"prompt": 3}, "prompt: Input should be a valid string"),
    ({"prompt": ""}, "prompt: String should"),
    ({"prompt": " a cat"}, "prompt: String should match"),
    ({"prompt": "a \u0007 cat"}, "the prompt has the control character U+0007"),
    ({"include": []}, "include: List should have at least 1 item"),
    ({"include": [ENTRY | {"count": "2"}]}, "include.0.count: Input should be a valid integer"),
    ({"include": [ENTRY | {"count": True}]}, "include.0.count: Input should be a valid integer"),
    ({"include": [ENTRY | {"count": 0}]}, "include.0.count: Input should be greater"),
    ({"include": [ENTRY | {"region": "middle"}]}, "include.0.region: Input should be 'left'"),
    ({"include": [{"class": "cat"}]}, "include.0.count: Field required"),
    ({"include": [ENTRY, ENTRY]}, "record: Value error, include names a class twice"),
    ({"include": [ENTRY | {"size": "larger"}]}, "record: Value error, include has something"),
    ({"exclude": [ENTRY | {"color": "red"}]}, "exclude.0.color: Extra inputs"),
]
WRONG_IMAGINE = [
    ({"extra": 1}, "extra: Extra inputs"),
    ({"type": "TASTE"}, "type: Input should be 'COLOR'"),
    ({"note": None}, "note: Input should be a valid string"),
    ({"id": "5"}, "id: Input should be a valid integer"),
    ({"id": 6}, "id 6; must be 5"),
]
WRONG = [
    *(("geneval++", *case) for case in WRONG_GENEVAL),
    *(("imagine", *case) for case in WRONG_IMAGINE),
]


@pytest.mark.parametrize(("name", "change", "why"), WRONG, ids=[str(case[1]) for case in WRONG])
def test_a_wrong_record(name, change, why, tmp_path):
    records = RECORDS[name]()
    records[4] |= change
    path = write(tmp_path / "data.jsonl", records)
    assert refusal(name, path).startswith(f", line 5: {why}")


@pytest.mark.parametrize(
    ("name", "key"), [("geneval++", "tag"), ("geneval++", "include"), ("imagine", "note")]
)
def test_a_missing_field(name, key, tmp_path):
    records = RECORDS[name]()
    del records[4][key]
    path = write(tmp_path / "data.jsonl", records)
    assert refusal(name, path) == f", line 5: {key}: Field required"


@BOTH
def test_the_same_prompt_twice(name, tmp_path):
    records = RECORDS[name]()
    key = "prompt" if name == "geneval++" else "instruction"
    records[9][key] = records[2][key]
    path = write(tmp_path / "data.jsonl", records)
    assert refusal(name, path).startswith(", line 10: the same prompt as line 3: 'A photo of")


def test_the_right_number_but_of_other_groups(tmp_path):
    records = RECORDS["geneval++"]()
    records[0]["tag"] = "counting"
    text = refusal("geneval++", write(tmp_path / "data.jsonl", records))
    assert "39 of color_attr (must be 40), 41 of counting (must be 40)" in text


def test_an_unknown_benchmark():
    with pytest.raises(ConfigError, match=r"no benchmark 'geneval'; known: geneval\+\+, imagine"):
        open_suite("geneval")


def test_shapes_take_no_data(tmp_path):
    with pytest.raises(ConfigError, match="leave --data out"):
        open_suite("shapes", tmp_path)
