"""The .npz reader: the Keras layout, and each way in which people's files are wrong."""

from pathlib import Path

import numpy as np
import pytest
import torch

from adamant.data import load_data
from adamant.errors import InputError

N = 30


def write(folder: Path, **change: object) -> Path:
    """A good file of 30 + 30 grey images, with some of its arrays replaced (None drops one)."""
    number = np.arange(2 * N * 16).reshape(2, N, 4, 4)
    pixels = (number * 7 + number // 16) % 256  # no two images are equal
    y = (np.arange(N) % 3).astype(np.uint8)
    arrays = {"x_train": pixels[0].astype(np.uint8), "y_train": y, "x_test": pixels[1].astype(np.uint8), "y_test": y}
    held = {k: v for k, v in {**arrays, **change}.items() if v is not None}
    np.savez(folder / "made.npz", **held)  # pyright: ignore[reportArgumentType]
    return folder / "made.npz"


def grey(dtype: type = np.float32, scale: float = 1) -> np.ndarray:
    return (np.linspace(0, 1, N * 16).reshape(N, 4, 4) * scale).astype(dtype)


def test_bytes_are_scaled_and_get_a_channel(tmp_path: Path) -> None:
    path = write(tmp_path)
    data = load_data(path)
    held = np.load(path)
    assert data.x.shape == (N, 1, 4, 4)
    assert data.x.dtype == torch.float32
    assert torch.equal(data.x[:, 0], torch.from_numpy(held["x_test"]).float() / 255)
    assert data.y.dtype == torch.int64
    assert data.y.tolist() == held["y_test"].tolist()
    assert (data.name, data.split, data.classes) == ("made", "test", ("0", "1", "2"))
    assert data.rows.tolist() == list(range(N))
    assert data.notes == ()


def test_channels_go_first(tmp_path: Path) -> None:
    x = np.arange(N * 4 * 5 * 3).reshape(N, 4, 5, 3).astype(np.uint8)
    last = load_data(write(tmp_path, x_test=x))
    assert last.x.shape == (N, 3, 4, 5)
    assert torch.equal(last.x[2, 1], torch.from_numpy(x[2, :, :, 1]).float() / 255)
    first = load_data(write(tmp_path, x_test=x.transpose(0, 3, 1, 2)))
    assert torch.equal(first.x, last.x)


def test_other_number_types(tmp_path: Path) -> None:
    wanted = load_data(write(tmp_path)).x
    whole = np.load(tmp_path / "made.npz")["x_test"].astype(np.int64)
    assert torch.equal(load_data(write(tmp_path, x_test=whole)).x, wanted)
    assert torch.equal(load_data(write(tmp_path, x_test=whole // 128)).x[:, 0], torch.from_numpy(whole // 128).float())
    assert torch.allclose(load_data(write(tmp_path, x_test=whole / 255)).x, wanted)
    assert torch.equal(load_data(write(tmp_path, x_test=whole > 9)).x[:, 0], torch.from_numpy(whole > 9).float())
    vectors = np.linspace(-5, 300, N * 6).reshape(N, 6)
    assert torch.allclose(load_data(write(tmp_path, x_test=vectors)).x, torch.from_numpy(vectors).float())


def test_whether_integers_are_scaled_does_not_depend_on_the_limit(tmp_path: Path) -> None:
    x = np.ones((N, 4, 4), dtype=np.int64)
    x[-1] = 255
    assert load_data(write(tmp_path, x_test=x), limit=2).x.max().item() == pytest.approx(1 / 255)


def test_val_is_carved_from_train(tmp_path: Path) -> None:
    path = write(tmp_path)
    train, val, again = (load_data(path, split=s, seed=4) for s in ("train", "val", "val"))
    other = load_data(path, split="val", seed=5)
    assert sorted([*train.rows.tolist(), *val.rows.tolist()]) == list(range(N))
    assert len(val) == 3
    assert torch.equal(val.rows, again.rows)
    assert val.rows.tolist() != other.rows.tolist()
    held = np.load(path)["x_train"]
    assert torch.equal(val.x[:, 0], torch.from_numpy(held[val.rows.numpy()]).float() / 255)
    assert "seed 4" in val.notes[0]
    own = write(tmp_path, x_val=held[:5], y_val=np.array([0, 1, 2, 0, 1]))
    assert len(load_data(own, split="val")) == 5
    assert len(load_data(own, split="train")) == N


def test_class_names_are_kept(tmp_path: Path) -> None:
    assert load_data(write(tmp_path, class_names=np.array(["cat", "dog", "eel"]))).classes == ("cat", "dog", "eel")


def test_one_hot_labels_are_converted_with_a_note(tmp_path: Path) -> None:
    data = load_data(write(tmp_path, y_test=np.eye(3)[np.arange(N) % 3]))
    assert data.y.tolist() == [i % 3 for i in range(N)]
    assert "y_test was one-hot" in data.notes[0]


def test_columns_of_labels_are_flattened(tmp_path: Path) -> None:
    assert load_data(write(tmp_path, y_test=(np.arange(N) % 3)[:, None])).y.shape == (N,)


def test_duplicates_between_train_and_test_are_counted(tmp_path: Path) -> None:
    held = dict(np.load(write(tmp_path)))
    x = held["x_test"].copy()
    x[[3, 9]] = held["x_train"][[5, 5]]
    (note,) = load_data(write(tmp_path, x_test=x)).notes
    assert note.startswith("2 of the 30 inputs of test are also in train")
    assert not any("also in train" in n for n in load_data(tmp_path / "made.npz", split="train").notes)


def with_row(row: int, value: float) -> np.ndarray:
    x = grey()
    x[row, 1, 2] = value
    return x


def label_row(row: int, value: float, dtype: type = np.int64) -> np.ndarray:
    y = (np.arange(N) % 3).astype(dtype)
    y[row] = value
    return y


SOFT = np.eye(3)[np.arange(N) % 3]
SOFT[4] = [0.5, 0.5, 0]
RAGGED = np.array([np.zeros((2 + i % 2, 2)) for i in range(N)], dtype=object)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x_test": with_row(17, np.nan)}, r"made\.npz: x_test: row 17 holds nan"),
        ({"x_test": with_row(18, -np.inf)}, r"x_test: row 18 holds -inf"),
        ({"x_test": with_row(5, 300)}, r"row 5 holds 300, outside of \[0, 1\]; divide them by their largest value"),
        ({"x_test": grey(scale=255)}, r"row 0 holds 1\.\d+, outside of \[0, 1\]; divide them by 255"),
        ({"x_test": with_row(9, -0.5)}, r"row 9 holds -0.5.*before they were normalised"),
        ({"x_test": grey(np.int64, 4000)}, r"row \d+ holds \d+, outside of \[0, 255\]"),
        ({"x_test": np.array(["a"] * N)}, r"made\.npz: x_test has dtype <U1"),
        ({"x_test": grey(np.complex64)}, r"x_test has dtype complex64"),
        ({"x_test": np.zeros(N)}, r"x_test has shape \(30,\)"),
        ({"x_test": np.zeros((N, 2, 5, 5))}, r"shape \(30, 2, 5, 5\); images have 1, 3 or 4 channels"),
        ({"x_test": np.zeros((N, 1, 2, 3, 4))}, r"shape \(30, 1, 2, 3, 4\)"),
        ({"x_test": np.float64(3)}, r"x_test is one number"),
        ({"x_test": RAGGED}, r"made\.npz: x_test holds Python objects"),
        ({"y_test": np.zeros(N - 1, dtype=int)}, r"y_test has 29 labels for 30 inputs"),
        ({"y_train": np.zeros(N + 9, dtype=int)}, r"y_train has 39 labels for 30 inputs"),
        ({"y_test": np.int64(3)}, r"y_test has one number labels"),
        ({"y_test": label_row(11, -1)}, r"made\.npz: y_test: row 11 has label -1"),
        ({"y_test": label_row(12, 7)}, r"made\.npz \(test\): row 12 has label 7, and there are 3 classes"),
        ({"y_test": label_row(2, 0.5, np.float32)}, r"y_test has dtype float32 \(row 2 is 0.5\)"),
        ({"y_test": label_row(2, 1, np.float32)}, r"y_test has dtype float32"),
        ({"y_test": np.array(["cat"] * N)}, r"y_test has dtype <U3"),
        ({"y_test": np.array([None] * N)}, r"y_test holds Python objects"),
        ({"y_test": SOFT}, r"y_test: row 4 is \[0.5, 0.5, 0.0\]"),
        ({"y_test": np.zeros((N, 2, 2), dtype=int)}, r"y_test has shape \(30, 2, 2\)"),
        ({"y_test": np.full(N, 2)}, r"Every label in .*made\.npz \(test\) is 2"),
        ({"class_names": np.array(["cat", "dog"])}, r"row 2 has label 2, and there are 2 classes"),
        ({"x_test": np.zeros((0, 4, 4)), "y_test": np.zeros(0, dtype=int)}, r"The test split of .*made\.npz is empty"),
        ({"x_test": None}, r"has no split 'test'; it has train, val"),
        ({"x_test": None, "y_train": None}, r"made\.npz holds x_train, y_test; adamant reads x_train, y_train"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, object], words: str) -> None:
    path = write(tmp_path, **change)
    with pytest.raises(InputError, match=words):
        load_data(path)


def test_rows_are_named_by_their_own_number(tmp_path: Path) -> None:
    """In a val split the place and the number differ; the message gives the number in the file."""
    path = write(tmp_path)
    row = int(load_data(path, split="val").rows[1])
    x = grey()
    x[row] = np.nan
    with pytest.raises(InputError, match=f"x_train: row {row} holds nan"):
        load_data(write(tmp_path, x_train=x), split="val")


def test_a_limit_of_one_class_is_remarked(tmp_path: Path) -> None:
    y = np.sort(np.arange(N) % 3)
    assert "The first 5 rows are all of class 0." in load_data(write(tmp_path, y_test=y), limit=5).notes


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = write(tmp_path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(InputError, match=r"made\.npz is not a readable \.npz"):
        load_data(path)
    np.save(tmp_path / "one.npy", np.zeros(3))
    (tmp_path / "one.npy").rename(tmp_path / "one.npz")
    with pytest.raises(InputError, match=r"one\.npz"):
        load_data(tmp_path / "one.npz")


def test_size_is_for_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"size is \(8, 8\)"):
        load_data(write(tmp_path), size=(8, 8))
    with pytest.raises(InputError, match=r"size is \(8, 8\)"):
        load_data("digits", size=(8, 8))
