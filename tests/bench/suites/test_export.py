"""Images out in the published layout, and in again."""

from __future__ import annotations

import asyncio
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npc_local.bench.suites.export import check_export, export, images_from
from npc_local.bench.suites.geneval_pp import GenEvalPlusPlus
from npc_local.bench.suites.imagine import ImagineBench
from npc_local.bench.suites.shapes import ShapesBench
from npc_local.core.errors import ConfigError, StorageError
from npc_local.core.files.images import open_image
from npc_local.shapes.draw import draw
from npc_local.shapes.scene import sample_scene
from tests.bench.suites.fakes import RECORDS, write
from tests.bench.suites.test_shapes import groups_of


def picture(number):
    return Image.new("RGB", (32, 24), (number % 256, number // 256, 128))


@pytest.mark.parametrize(
    ("name", "opened", "metadata"),
    [("geneval++", GenEvalPlusPlus, "Geneval++.jsonl"), ("imagine", ImagineBench, "Imagine.jsonl")],
)
def test_the_published_layout(name, opened, metadata, tmp_path):
    data = write(tmp_path / "data.jsonl", RECORDS[name]())
    suite = opened(data)
    out = tmp_path / "deep" / "out"
    export(out, suite, ((item, picture(item.number)) for item in suite.items()))
    count = len(suite.items())
    assert {path.name for path in out.iterdir()} == {
        metadata,
        *(f"{number}.jpg" for number in range(1, count + 1)),
    }
    assert (out / metadata).read_bytes() == data.read_bytes()
    with Image.open(out / "7.jpg") as image:
        assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (32, 24))
    assert opened(out / metadata).items() == suite.items()
    assert [path.name for path in out.parent.iterdir()] == ["out"]  # nothing is left beside it


def test_the_order_of_images_does_not_name_them(tmp_path):
    suite = ShapesBench(1)
    pairs = [(item, picture(30 * item.number)) for item in suite.items()]
    random.Random(0).shuffle(pairs)
    export(tmp_path / "out", suite, pairs)
    found = images_from(tmp_path / "out", suite.items())
    for item, image in pairs:
        read = np.asarray(open_image(found[item.number]), dtype=int)
        assert np.abs(read - np.asarray(image, dtype=int)).max() <= 4


def test_exported_pictures_are_judged_as_the_originals(tmp_path):
    suite = ShapesBench(2, 4)
    pictures = {
        item.number: draw(sample_scene(groups_of(item.record), random.Random(item.number)))
        for item in suite.items()
    }
    export(tmp_path / "out", suite, ((item, pictures[item.number]) for item in suite.items()))
    found = images_from(tmp_path / "out", suite.items())
    for item in suite.items():
        image = open_image(found[item.number])
        assert asyncio.run(suite.judge(None, item, image)).correct, item.prompt


def test_some_images_come_with_all_records(tmp_path):
    suite = ShapesBench(1)
    third = suite.items()[2]
    export(tmp_path / "out", suite, [(third, picture(3))])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"3.jpg", suite.metadata}
    assert len((tmp_path / "out" / suite.metadata).read_text().splitlines()) == 7


def test_a_directory_with_something_in_it_is_left_alone(tmp_path):
    (tmp_path / "8.jpg").write_text("another run's")
    with pytest.raises(StorageError, match="holds something already"):
        export(tmp_path, ShapesBench(1), [])
    assert [path.name for path in tmp_path.iterdir()] == ["8.jpg"]


def test_an_earlier_export_is_replaced_whole(tmp_path):
    suite = ShapesBench(1)
    first, second, *_ = suite.items()
    export(tmp_path / "out", suite, [(first, picture(1))])
    export(tmp_path / "out", suite, [(second, picture(2))])
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"2.jpg", suite.metadata}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_death_in_the_middle_of_an_export_is_swept_and_the_rest_is_kept(tmp_path, monkeypatch):
    suite = ShapesBench(1)
    export(tmp_path / "base", suite, [(suite.items()[0], picture(1))])
    with monkeypatch.context() as dying:
        dying.setattr(shutil, "rmtree", lambda path, **_: None)
        dying.setattr(Path, "replace", lambda path, to: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            export(tmp_path / "npc", suite, [(suite.items()[0], picture(1))])
    assert len(list(tmp_path.iterdir())) > 1
    check_export(tmp_path, suite)
    assert [path.name for path in tmp_path.iterdir()] == ["base"]


@pytest.mark.parametrize(
    "name", ["thesis.txt", "npc/thesis.txt", "npc/1.jpg", ".npc-local-export.x/thesis.txt"]
)
def test_what_is_no_export_is_refused_and_left_alone(tmp_path, name):
    suite = ShapesBench(1)
    export(tmp_path / "base", suite, [])
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("mine")
    with pytest.raises(StorageError, match="holds something already"):
        check_export(tmp_path, suite)
    assert (tmp_path / name).read_text() == "mine"


def test_a_file_cannot_take_exports_nor_can_anything_below_one(tmp_path):
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "deep" / "out"):
        with pytest.raises(StorageError, match="file is no directory"):
            check_export(path, ShapesBench(1))
    check_export(tmp_path / "new" / "out", ShapesBench(1))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_failure_on_the_way_leaves_nothing(tmp_path):
    suite = ShapesBench(1)

    def images():
        yield suite.items()[0], picture(1)
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        export(tmp_path / "out", suite, images())
    assert list(tmp_path.iterdir()) == []


def test_two_images_of_one_number(tmp_path):
    suite = ShapesBench(1)
    with pytest.raises(ValueError, match="two images of number 1"):
        export(tmp_path / "out", suite, [(suite.items()[0], picture(1))] * 2)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_can_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        export(tmp_path / "file" / "out", ShapesBench(1), [])


# ---------------------------------------------------------------------------------- the other way


@pytest.fixture
def made(tmp_path):
    """Seven images made elsewhere, of several formats."""
    suffixes = ["jpg", "png", "jpeg", "webp", "jpg", "png", "jpg"]
    for number, suffix in enumerate(suffixes, start=1):
        picture(number).save(tmp_path / f"{number}.{suffix}")
    return tmp_path


def test_images_made_elsewhere(made):
    (made / "notes.txt").write_text("not an image")
    found = images_from(made, ShapesBench(1).items())
    assert [found[number].name for number in range(1, 8)] == [
        *("1.jpg", "2.png", "3.jpeg", "4.webp", "5.jpg", "6.png", "7.jpg"),
    ]


def test_only_the_items_asked_for_must_be_there(made):
    (made / "7.jpg").unlink()
    assert set(images_from(made, ShapesBench(1).items()[:6])) == set(range(1, 7))


def test_all_that_is_wrong_is_named_at_once(made):
    for name in ("1.jpg", "3.jpeg", "4.webp"):
        (made / name).unlink()
    (made / "2.png").write_bytes((made / "2.png").read_bytes()[:-30])
    (made / "5.jpg").write_text("not an image")
    picture(6).save(made / "6.jpg")
    with pytest.raises(ConfigError) as caught:
        images_from(made, ShapesBench(1).items())
    text = str(caught.value)
    assert "7 images belong here" in text
    assert "no image of number 1, 3-4;" in text
    assert "2.png: cannot be read" in text
    assert "5.jpg: not an image" in text
    assert "more than one image of that number: 6.jpg, 6.png" in text
    assert "7.jpg" not in text


def test_every_missing_number_is_named_however_many(tmp_path):
    with pytest.raises(ConfigError, match=r"no image of number 1-280$"):
        images_from(tmp_path, ShapesBench().items())
    with pytest.raises(ConfigError, match="no such directory"):
        images_from(tmp_path / "gone", ShapesBench(1).items())
