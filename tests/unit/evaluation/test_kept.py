"""The broken inputs on the disk: the bytes that safetensors writes, whole or in pieces."""

import itertools

import pytest
import safetensors.torch
import torch

from adamant.evaluation.kept import NAMES, Kept, write_pieces


def some(n: int, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    x = torch.arange(n * 6, dtype=dtype).reshape(n, 1, 2, 3) / 7
    return {"row": torch.arange(n) * 3, "original": x, "adversarial": x + 0.25}


@pytest.mark.parametrize("n", [0, 1, 5, 1300])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_file_is_that_of_safetensors(n, dtype, tmp_path):
    held = some(n, dtype)
    Kept(held).write(tmp_path / "a")
    assert safetensors.torch.load_file(tmp_path / "a").keys() == held.keys()
    for name, values in safetensors.torch.load_file(tmp_path / "a").items():
        assert torch.equal(values, held[name])
    if dtype == torch.float32:
        assert (tmp_path / "a").read_bytes() == safetensors.torch.save(held)
    back = Kept(tmp_path / "a")
    assert set(back) == set(NAMES)
    for name in NAMES:
        assert torch.equal(back[name], held[name])
        parts = [piece[name] for piece in back.pieces()]
        assert (
            [len(p) for p in parts]
            == [len(p[name]) for p in Kept(held).pieces()]
            == [512] * (n // 512) + [n % 512] * bool(n % 512)
        )
        assert torch.equal(torch.cat([held[name][:0], *parts]), held[name])


def test_how_it_is_cut_does_not_matter(tmp_path):
    held = some(10)
    for name, cuts in (("a", (10,)), ("b", (3, 0, 7)), ("c", (0, 1, 9))):
        at = [0, *torch.tensor(cuts).cumsum(0).tolist()]
        pieces = [{k: v[a:b] for k, v in held.items()} for a, b in itertools.pairwise(at)]
        write_pieces(tmp_path / name, lambda pieces=pieces: pieces, pieces[0])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes()


def test_what_is_no_part_of_it_is_not_there():
    with pytest.raises(KeyError):
        Kept(some(2))["label"]
