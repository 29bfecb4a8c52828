"""Pictures in the layout that a model was made for, and the layouts that are tried where none is known."""

import pytest
import torch

from adamant.errors import ModelError
from adamant.models.layout import laid_out, made_for, ways


@pytest.mark.parametrize(("have", "wanted", "change"), [
    ((3, 4, 5), (3, 4, 5), lambda x: x),
    ((3, 4, 5), (None, None, 3), lambda x: x.permute(0, 2, 3, 1)),
    ((1, 4, 5), (4, 5), lambda x: x[:, 0]),
    ((1, 4, 5), (20,), lambda x: x.flatten(1)),
    ((4, 5), (20,), lambda x: x.flatten(1)),
    ((3, 4, 5), None, lambda x: x),
])  # fmt: skip
def test_a_batch_gets_the_layout_that_is_wanted(have, wanted, change):
    x = torch.rand(2, *have)
    assert torch.equal(laid_out(x, wanted), change(x))


@pytest.mark.parametrize("wanted", [(4, 5), (60,), (5, 4, 3), (4, 5, 1)])
def test_what_has_no_one_layout_is_refused(wanted):
    with pytest.raises(ModelError, match=r"data have \(3, 4, 5\)"):
        laid_out(torch.rand(2, 3, 4, 5), wanted)


@pytest.mark.parametrize("shape", [(1, 4, 5), (3, 4, 5), (4, 5), (7,)])
def test_every_way_of_writing_a_shape_is_one_that_a_batch_can_be_laid_out_in(shape):
    assert all(laid_out(torch.rand(2, *shape), way).shape[1:] == way for way in ways(shape))
    assert len(set(ways(shape))) == {(1, 4, 5): 4, (3, 4, 5): 2, (4, 5): 2, (7,): 1}[shape]


def test_the_first_way_that_a_model_takes_is_its_own():
    def make(way):
        if way[-1] != 3:
            raise ModelError(f"not {way}")
        return way

    assert made_for(make, ways((3, 4, 5))) == (4, 5, 3)
    with pytest.raises(ModelError, match=r"not \(1, 4, 5\)"):
        made_for(make, ways((1, 4, 5)))
