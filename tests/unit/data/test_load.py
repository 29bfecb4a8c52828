"""load_data: how names are found, what is said when they are not, torchvision, and the real files where they are."""

import os
import sys
import types
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from adamant.data import DATA, load_data
from adamant.errors import InputError, MissingExtraError

SHARED = Path(os.environ.get("ADAMANT_DATA_DIR", Path(__file__).parents[3].parent / "shared" / "data"))


@pytest.fixture
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with one set in it, and a current directory that is elsewhere."""
    held = tmp_path / "shelf"
    held.mkdir()
    x, y = np.zeros((6, 4, 4), dtype=np.uint8), np.arange(6) % 2
    np.savez(held / "shapes.npz", x_train=x, y_train=y, x_test=x + 1, y_test=y)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("ADAMANT_DATA_DIR", raising=False)
    return held


def test_bare_names_are_found_in_the_data_folder(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_data("shapes", data_dir=shelf).name == "shapes"
    assert load_data("shapes.npz", data_dir=str(shelf)).name == "shapes"
    with pytest.raises(InputError):
        load_data("shapes")
    monkeypatch.setenv("ADAMANT_DATA_DIR", str(shelf))
    assert load_data("shapes").name == "shapes"


def test_what_is_there_is_listed(shelf: Path) -> None:
    with pytest.raises(InputError, match="no data 'shape'") as caught:
        load_data("shape", data_dir=shelf)
    words = str(caught.value)
    for expected in (str(shelf), "shapes.npz", "--data-dir", "ADAMANT_DATA_DIR", "Did you mean shapes?"):
        assert expected in words
    with pytest.raises(InputError, match="gone is empty or missing"):
        load_data("shapes", data_dir=shelf / "gone")
    with pytest.raises(InputError, match=r"no data 'gone/shapes\.npz'"):
        load_data("gone/shapes.npz")
    with pytest.raises(InputError, match="Did you mean digits"):
        load_data("digit", data_dir=shelf)


def test_other_kinds_of_file_are_refused(shelf: Path) -> None:
    (shelf / "table.csv").write_text("a,b")
    with pytest.raises(InputError, match=r"table\.csv is not a kind of file.*FILE\.npz.*FILE\.parquet"):
        load_data("table.csv", data_dir=shelf)


def test_the_catalogue_can_be_listed() -> None:
    assert DATA[0].spec == "digits"
    assert len({d.spec for d in DATA}) == len(DATA)
    assert all(d.what for d in DATA)


def test_without_torchvision_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(MissingExtraError, match=r"torchvision:MNIST needs torchvision.*adamant\[torchvision\]"):
        load_data("torchvision:MNIST")


class StandIn:
    """What torchvision's data sets have in common; the real ones are an extra that these tests do not need."""

    classes = ("cat", "dog")

    def __init__(self, root: Path, train: bool = True) -> None:
        if not Path(root, "there").exists():
            raise RuntimeError("Dataset not found. You can use download=True to download it")
        self.targets = torch.arange(20 if train else 6) % 2

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        return Image.new("RGB", (6, 5), (row, 0, 255)), int(self.targets[row])


def test_torchvision_data_are_read_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in = types.ModuleType("torchvision.datasets")
    stand_in.Pets = StandIn  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "torchvision", types.ModuleType("torchvision"))
    monkeypatch.setitem(sys.modules, "torchvision.datasets", stand_in)
    with pytest.raises(InputError, match=r"torchvision:Pets is not in .*Dataset not found.*downloads nothing"):
        load_data("torchvision:Pets", data_dir=tmp_path)
    with pytest.raises(InputError, match="no data set 'Pet'; did you mean Pets"):
        load_data("torchvision:Pet", data_dir=tmp_path)
    (tmp_path / "there").touch()
    data = load_data("torchvision:Pets", data_dir=tmp_path, limit=4)
    assert data.x.shape == (4, 3, 5, 6)
    assert torch.equal(data.x[:, 0, 0, 0], torch.arange(4) / 255)
    assert data.classes == ("cat", "dog")
    assert len(load_data("torchvision:Pets", data_dir=tmp_path, split="train")) == 18
    assert load_data("torchvision:Pets", data_dir=tmp_path, size=(2, 3)).x.shape == (6, 3, 2, 3)


def shared(name: str) -> Path:
    if not (SHARED / name).exists():
        pytest.skip(f"needs {name} in the data folder (ADAMANT_DATA_DIR)")
    return SHARED


@pytest.mark.parametrize(
    ("name", "file", "shape", "count", "classes"),
    [
        ("mnist", "mnist.npz", (1, 28, 28), 10_000, 10),
        ("fashion_mnist", "fashion_mnist.npz", (1, 28, 28), 10_000, 10),
        ("pneumonia_mnist", "pneumonia_mnist.npz", (1, 28, 28), 624, 2),
        ("gtsrb_32", "gtsrb_32.npz", (3, 32, 32), 3000, 43),
    ],
)
def test_real_arrays(name: str, file: str, shape: tuple[int, ...], count: int, classes: int) -> None:
    data = load_data(name, data_dir=shared(file))
    assert data.x.shape == (count, *shape)
    assert len(data.classes) == classes
    assert int(data.y.max()) == classes - 1


def test_real_parquet() -> None:
    data = load_data("cifar10_jpeg", data_dir=shared("cifar10_jpeg"), limit=50)
    assert data.x.shape == (50, 3, 32, 32)
    column = pq.read_table(SHARED / "cifar10_jpeg" / "test.parquet", columns=["label"]).column("label")
    assert data.y.tolist() == column.to_pylist()[:50]
    assert len(data.classes) == 10
