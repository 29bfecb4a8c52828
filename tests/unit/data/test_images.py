"""Image folders, parquet files and single images, with what can be wrong with each."""

import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from adamant.data import load_data
from adamant.errors import InputError


def picture(value: int, mode: str = "L", size: tuple[int, int] = (6, 5)) -> Image.Image:
    image = Image.new("L", size, value)
    image.putpixel((1, 0), 255)
    return image.convert(mode)


def folder(root: Path, classes: tuple[str, ...] = ("cat", "dog"), each: int = 5, start: int = 0) -> Path:
    for c, name in enumerate(classes):
        (root / name).mkdir(parents=True)
        for i in range(each):
            picture(start + c * each + i).save(root / name / f"{i}.png")
    return root


def test_a_folder_without_splits_is_split(tmp_path: Path) -> None:
    folder(tmp_path / "pets")
    (tmp_path / "pets" / ".cache").mkdir()
    (tmp_path / "pets" / "cat" / "notes.txt").write_text("not an image")
    whole = load_data(tmp_path / "pets", split="all")
    assert whole.x.shape == (10, 1, 5, 6)  # height 5, width 6
    assert whole.classes == ("cat", "dog")
    assert whole.y.tolist() == [0, 1] * 5  # round the classes
    assert torch.equal(whole.x[:, 0, 1, 1], torch.tensor([0, 5, 1, 6, 2, 7, 3, 8, 4, 9]) / 255)
    assert (whole.x[:, 0, 0, 1] == 1).all()
    parts = [load_data(tmp_path / "pets", split=s) for s in ("train", "val", "test")]
    assert [len(p) for p in parts] == [6, 2, 2]
    assert sorted(r for p in parts for r in p.rows.tolist()) == list(range(10))


def test_a_folder_with_splits(tmp_path: Path) -> None:
    folder(tmp_path / "train", each=10)
    folder(tmp_path / "validation", each=2, start=60)
    folder(tmp_path / "test", each=3)  # cat 0, 1, 2 are in train as well
    test = load_data(tmp_path)
    assert len(test) == 6
    assert test.notes == ("6 of the 6 inputs of test are also in train, byte for byte.",)
    assert len(load_data(tmp_path, split="val")) == 4
    assert len(load_data(tmp_path, split="train")) == 20


def test_grey_joins_colour(tmp_path: Path) -> None:
    folder(tmp_path)
    picture(9, "RGB").save(tmp_path / "cat" / "0.png")
    whole = load_data(tmp_path, split="all")
    assert whole.x.shape == (10, 3, 5, 6)
    assert load_data(tmp_path, split="all", limit=1).x.shape == (1, 3, 5, 6)


def test_sizes_can_be_made_equal(tmp_path: Path) -> None:
    folder(tmp_path)
    picture(3, size=(8, 8)).save(tmp_path / "dog" / "3.png")
    with pytest.raises(InputError, match=r"dog.3\.png is 8x8 and .*cat.0\.png is 5x6.*size="):
        load_data(tmp_path, split="all")
    assert load_data(tmp_path, split="all", size=(4, 7)).x.shape == (10, 1, 4, 7)


def test_bad_folders_are_named(tmp_path: Path) -> None:
    folder(tmp_path / "a")
    (tmp_path / "a" / "dog" / "2.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"dog.2\.png is not a readable image"):
        load_data(tmp_path / "a", split="all")
    whole = (tmp_path / "a" / "dog" / "3.png").read_bytes()
    (tmp_path / "a" / "dog" / "2.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"dog.2\.png is not a readable image"):
        load_data(tmp_path / "a", split="all")
    picture(1, "RGB").save(tmp_path / "a" / "dog" / "2.png")
    with pytest.raises(InputError, match=r"dog.2\.png is a colour image among grey ones"):
        load_data(tmp_path / "a", split="all")
    Image.fromarray(np.zeros((5, 6), dtype=np.uint16)).save(tmp_path / "a" / "dog" / "2.png")
    with pytest.raises(InputError, match=r"dog.2\.png has more than 8 bits"):
        load_data(tmp_path / "a", split="all")
    (tmp_path / "b" / "x").mkdir(parents=True)
    with pytest.raises(InputError, match=r"no images in .*b.x"):
        load_data(tmp_path / "b")
    (tmp_path / "c").mkdir()
    with pytest.raises(InputError, match=r"c holds no folder of images"):
        load_data(tmp_path / "c")
    folder(tmp_path / "d", ("cat",))
    with pytest.raises(InputError, match=r"Every label in .*d \(all\) is 0"):
        load_data(tmp_path / "d")
    folder(tmp_path / "e" / "train")
    folder(tmp_path / "e" / "test", ("cat", "eel"))
    with pytest.raises(InputError, match=r"test has other classes than .*train: dog, eel"):
        load_data(tmp_path / "e")


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("1", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("LA", 3)])
def test_one_image(tmp_path: Path, mode: str, channels: int) -> None:
    picture(255, mode).save(tmp_path / "cat.png")
    data = load_data(tmp_path / "cat.png", label=3)
    assert data.x.shape == (1, channels, 5, 6)
    assert (data.x == 1).all()
    assert (data.y.tolist(), data.name, len(data.classes)) == ([3], "cat", 4)
    assert load_data(tmp_path / "cat.png", label=0, size=(2, 3)).x.shape == (1, channels, 2, 3)
    assert len(load_data(tmp_path / "cat.png", label=0).classes) == 2


def test_one_image_is_named_when_it_is_bad(tmp_path: Path) -> None:
    picture(0).save(tmp_path / "cat.jpg")
    with pytest.raises(InputError, match=r"cat\.jpg is one image; say which class"):
        load_data(tmp_path / "cat.jpg")
    (tmp_path / "cat.jpg").write_bytes(b"")
    with pytest.raises(InputError, match=r"cat\.jpg is not a readable image"):
        load_data(tmp_path / "cat.jpg", label=1)
    with pytest.raises(InputError, match="label is 3, and digits brings its own"):
        load_data("digits", label=3)


def encoded(value: int, size: tuple[int, int] = (6, 5)) -> bytes:
    buffer = io.BytesIO()
    picture(value, size=size).save(buffer, "PNG")
    return buffer.getvalue()


def parquet(path: Path, images: list[object], labels: list[object], names: list[str] | None = None) -> Path:
    table = pa.table({"image": images, "label": labels})
    if names:
        features = {"info": {"features": {"label": {"names": names, "_type": "ClassLabel"}}}}
        table = table.replace_schema_metadata({"huggingface": json.dumps(features)})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def cells(values: range) -> list[object]:
    return [{"bytes": encoded(v), "path": None} for v in values]


def test_parquet_in_the_hugging_face_layout(tmp_path: Path) -> None:
    parquet(tmp_path / "p" / "train.parquet", cells(range(20)), [0, 1] * 10, ["cat", "dog"])
    parquet(tmp_path / "p" / "test.parquet", cells(range(18, 24)), [0, 1] * 3, ["cat", "dog"])
    test = load_data(tmp_path / "p")
    assert test.x.shape == (6, 1, 5, 6)
    assert torch.equal(test.x[:, 0, 1, 1], torch.arange(18, 24) / 255)
    assert test.classes == ("cat", "dog")
    assert test.notes == ("2 of the 6 inputs of test are also in train, byte for byte.",)
    assert len(load_data(tmp_path / "p", split="val")) == 2
    assert load_data(tmp_path / "p" / "test.parquet").fingerprint() == test.fingerprint()
    assert load_data("p", data_dir=tmp_path, limit=2).rows.tolist() == [0, 1]
    with pytest.raises(InputError, match=r"test\.parquet has no split 'train'; it has test"):
        load_data(tmp_path / "p" / "test.parquet", split="train")


def test_parquet_in_pieces_and_without_a_split(tmp_path: Path) -> None:
    raw = [encoded(v) for v in range(6)]
    parquet(tmp_path / "data" / "test-00000-of-00002.parquet", list(raw[:4]), [0, 1, 0, 1])
    parquet(tmp_path / "data" / "test-00001-of-00002.parquet", list(raw[4:]), [1, 1])
    data = load_data(tmp_path)
    assert torch.equal(data.x[:, 0, 1, 1], torch.arange(6) / 255)
    assert data.y.tolist() == [0, 1, 0, 1, 1, 1]
    parquet(tmp_path / "pets.parquet", cells(range(20)), [0, 1] * 10)
    assert len(load_data(tmp_path / "pets.parquet", split="train")) == 12


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        (cells(range(4)), [0, 1, -1, 0], r"test\.parquet: label: row 2 has label -1"),
        (cells(range(4)), [0, 1, 2, 5], r"row 3 has label 5, and there are 3 classes"),
        (cells(range(4)), [0, 1, None, 0], r"label: row 2 has no label"),
        (cells(range(4)), ["a", "b", "a", "b"], r"label has dtype"),
        (cells(range(4)), [0, 0, 0, 0], r"Every label in .*test\.parquet"),
        ([*cells(range(3)), {"bytes": b"junk", "path": None}], [0, 1, 0, 1], r"test\.parquet: row 3 is not a readable"),
        ([*cells(range(3)), {"bytes": None, "path": "x"}], [0, 1, 0, 1], r"test\.parquet: row 3 holds no image bytes"),
        (
            [*cells(range(3)), {"bytes": encoded(3, (9, 9))}],
            [0, 1, 0, 1],
            r"test\.parquet: row 3 is 9x9 and .*row 0",
        ),
        ([], [], r"The test split of .*test\.parquet is empty"),
    ],
)
def test_bad_parquet_rows_are_named(tmp_path: Path, images: list[object], labels: list[object], words: str) -> None:
    typed = labels if labels else pa.array([], pa.int64())
    path = parquet(tmp_path / "test.parquet", images, typed, ["cat", "dog", "eel"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(InputError, match=words):
        load_data(path)


def test_bad_parquet_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "test.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(InputError, match=r"test\.parquet is not a readable parquet file"):
        load_data(tmp_path / "test.parquet")
    pq.write_table(pa.table({"text": ["a"], "label": [1]}), tmp_path / "test.parquet")
    with pytest.raises(InputError, match=r"test\.parquet has the columns text, label"):
        load_data(tmp_path / "test.parquet")
