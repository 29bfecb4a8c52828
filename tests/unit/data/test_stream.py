"""Inputs on the disk are the same as in memory, row for row, and are not kept."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from adamant.data import load_data, open_data
from adamant.data.arrays import _Array
from adamant.errors import InputError

from .test_arrays import N, grey, write
from .test_images import encoded, folder


def pieces(path: Path, rows: int) -> Path:
    """A parquet file of images in row groups."""
    images = [{"bytes": encoded(i), "path": ""} for i in range(20)]
    table = pa.table({"image": images, "label": [i % 2 for i in range(20)]})
    pq.write_table(table, path, row_group_size=rows)
    return path


def compressed(path: Path) -> Path:
    held = dict(np.load(path))
    np.savez_compressed(path, **held)
    return path


def columns_first(folder: Path) -> Path:
    return write(folder, x_test=np.asfortranarray(grey()))


KINDS = {
    "bytes": write,
    "floats": lambda p: write(p, x_test=grey()),
    "integers": lambda p: write(p, x_test=(grey() * 255).round().astype(np.int64)),
    "channels last": lambda p: write(p, x_test=np.arange(N * 60).reshape(N, 4, 5, 3).astype(np.uint8)),
    "compressed": lambda p: compressed(write(p)),
    "columns first": columns_first,
    "folder": folder,
    "parquet": lambda p: pieces(p / "test.parquet", 3),
    "one group": lambda p: pieces(p / "test.parquet", 50),
    "digits": lambda p: "digits",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("split", ["test", "val"])
def test_rows_are_those_in_memory(kind, split, tmp_path):
    spec = KINDS[kind](tmp_path)
    if split == "val" and "parquet" in str(spec):
        split = "test"
    whole, lazy = load_data(spec, split=split, seed=3), open_data(spec, split=split, seed=3)
    assert lazy.x.shape == tuple(whole.x.shape)
    assert len(lazy) == len(lazy.x) == len(whole)
    for name in ("classes", "name", "split", "notes"):
        assert getattr(lazy, name) == getattr(whole, name)
    assert torch.equal(lazy.y, whole.y)
    assert torch.equal(lazy.rows, whole.rows)
    n = len(whole)
    mask = torch.arange(n) % 3 == 1
    for rows in (slice(None), slice(1, 3), torch.tensor([n - 1, 0, 1, 0]), torch.randperm(n), mask):
        assert torch.equal(lazy.x[rows], whole.x[rows])
    assert lazy.x[5:5].shape == whole.x[5:5].shape
    assert lazy.x[:2].dtype == torch.float32


def test_only_the_rows_that_are_asked_for_are_read(tmp_path, monkeypatch):
    path = write(tmp_path)
    data = open_data(path)
    _ = data.x[:1]
    read, true = [], np.frombuffer
    monkeypatch.setattr(np, "frombuffer", lambda held, kind: (read.append(len(held)), true(held, kind))[1])
    monkeypatch.setattr("adamant.data.arrays._array", lambda *a: pytest.fail("the whole array was read"))
    _ = data.x[torch.tensor([3, 4, 5, 9])]
    assert read == [3 * 16, 16]


def test_no_more_than_two_row_groups_are_kept(tmp_path, monkeypatch):
    data = open_data(pieces(tmp_path / "test.parquet", 4))
    asked, true = [], pq.ParquetFile.read_row_group
    monkeypatch.setattr(pq.ParquetFile, "read_row_group", lambda s, i, **k: (asked.append(i), true(s, i, **k))[1])
    for at in range(0, 20, 2):
        _ = data.x[at : at + 2]
    assert asked == [1, 2, 3, 4]  # row 0, read before, says whether the images are grey


@pytest.mark.parametrize("stored", [True, False])
def test_what_is_wrong_is_said_when_its_row_is_read(stored, tmp_path):
    x = grey()
    x[20, 1, 2] = np.nan
    path = write(tmp_path, x_test=x)
    data = open_data(path if stored else compressed(path))
    assert data.x[:20].isfinite().all()
    with pytest.raises(InputError, match=r"made\.npz: x_test: row 20 holds nan"):
        _ = data.x[18:25]


def test_an_image_of_another_size_is_named(tmp_path):
    images = [{"bytes": encoded(i, size=(6, 5) if i != 7 else (6, 6)), "path": ""} for i in range(10)]
    pq.write_table(pa.table({"image": images, "label": [i % 2 for i in range(10)]}), tmp_path / "test.parquet")
    data = open_data(tmp_path / "test.parquet")
    for rows in (slice(7, 8), slice(6, 9)):
        with pytest.raises(InputError, match=r"(?i)row 7 .*6"):
            _ = data.x[rows]


def test_a_bit_that_turned_is_noticed(tmp_path):
    path = write(tmp_path)
    held = bytearray(path.read_bytes())
    at = held.find(np.load(path)["x_test"].tobytes())
    held[at + 30] ^= 1
    path.write_bytes(bytes(held))
    with pytest.raises(InputError, match=r"x_test is damaged"):
        open_data(path)


def test_blocks_hold_every_row_once(tmp_path, monkeypatch):
    monkeypatch.setattr("adamant.data.arrays._BLOCK", 50)
    array = _Array(write(tmp_path), "x_test")
    held = np.load(tmp_path / "made.npz")["x_test"]
    assert list(array.keys(np.arange(N))) == [row.tobytes() for row in held]
    assert array.max() == held.max()


def test_duplicates_are_counted_in_pieces_too(tmp_path, monkeypatch):
    monkeypatch.setattr("adamant.data.arrays._BLOCK", 50)
    held = dict(np.load(write(tmp_path)))
    x = held["x_test"].copy()
    x[[3, 9, 29]] = held["x_train"][[5, 5, 0]]
    (note,) = open_data(write(tmp_path, x_test=x)).notes
    assert note.startswith("3 of the 30 inputs of test are also in train")


def test_one_image_is_no_data_set(tmp_path):
    (tmp_path / "cat.png").write_bytes(encoded(3))
    with pytest.raises(InputError, match="one image; give a data set"):
        open_data(tmp_path / "cat.png")
