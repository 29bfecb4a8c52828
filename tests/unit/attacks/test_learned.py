"""Attacks that ask a trained generator: what they hand out is in the set, and a file for something else is refused."""

import pytest
import torch
from tests.unit.models.changes import inputs, kept, wild

import adamant as am
from adamant.access import LabelsOnly
from adamant.cli import words
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.models.generators import Outline, build_changes, changed, draw, load_changes
from adamant.testing import Affine

SHAPE = (1, 8, 8)


@pytest.fixture
def ours(tmp_path):
    return kept(tmp_path / "advgan.safetensors", wild(SHAPE))


@pytest.fixture
def universal(tmp_path):
    return kept(tmp_path / "nag.safetensors", wild(SHAPE, noise=4))


def attacked(attack, threat, x=None, **more):
    x = inputs(SHAPE, 40) if x is None else x
    model = Affine(SHAPE, 10, seed=3)
    return am.attack(attack, model, x, model(x).argmax(1), threat, **more), x


@pytest.mark.parametrize("threat", [am.Linf(0.3), am.Linf(0.05), am.L2(1.0), am.L1(4.0), am.L0(6)], ids=str)
def test_one_look_at_what_the_generator_makes(ours, threat):
    out, x = attacked(am.AdvGAN(generator=ours), threat)
    assert threat.contains(out.x_adv, x).all()
    assert torch.equal(out.forwards, torch.ones(40, dtype=torch.int64))
    made = changed(load_changes(ours, x), x, threat)
    assert torch.equal(out.x_adv, made)


def test_it_needs_no_more_than_the_label(ours):
    out, _ = attacked(am.AdvGAN(generator=ours), am.Linf(0.3), access=LabelsOnly())
    assert 0 < out.success_rate < 1


def test_a_smaller_budget_is_kept_and_breaks_less(ours):
    rates = [attacked(am.AdvGAN(generator=ours), am.Linf(eps))[0].success_rate for eps in (0.01, 0.3)]
    assert rates[0] < rates[1]


def test_each_draw_is_one_change_for_all_rows(universal):
    x = torch.full((6, *SHAPE), 0.5) + 0.01 * torch.arange(6).view(-1, 1, 1, 1)
    out, _ = attacked(am.NAG(generator=universal, steps=0), am.Linf(0.2), x)
    first = changed(load_changes(universal, x), x, am.Linf(0.2), draw(load_changes(universal, x), 0))
    assert torch.equal(out.x_adv, first)
    assert torch.allclose((out.x_adv - x)[0], (out.x_adv - x)[5], atol=1e-6)


def test_more_draws_break_more(universal):
    once, often = (attacked(am.NAG(generator=universal, steps=n), am.Linf(0.2))[0] for n in (0, 9))
    assert (often.broken | ~once.broken).all()
    assert often.success_rate > once.success_rate
    assert int(often.forwards.max()) == 10


def test_files_for_something_else(ours, universal):
    with pytest.raises(InputError, match=r"changes inputs of shape \(1, 8, 8\), and these inputs are \(3, 4, 4\)"):
        attacked_elsewhere(am.AdvGAN(generator=ours), (3, 4, 4))
    with pytest.raises(InputError, match="from noise: attack with NAG"):
        attacked(am.AdvGAN(generator=universal), am.Linf(0.1))
    with pytest.raises(InputError, match="from the input: attack with AdvGAN"):
        attacked(am.NAG(generator=ours), am.Linf(0.1))
    with pytest.raises(InputError, match="There is no generator at nowhere"):
        attacked(am.AdvGAN(generator="nowhere.safetensors"), am.Linf(0.1))
    with pytest.raises(InputError, match="these parameters are"):
        attacked(am.AdvGAN(generator=ours), am.Spatial())
    with pytest.raises(InputError, match="works within a budget"):
        attacked(am.AdvGAN(generator=ours), am.L2())


def attacked_elsewhere(attack, shape):
    x = inputs(shape)
    return am.attack(attack, Affine(shape, 10, seed=3), x, torch.zeros(len(x), dtype=torch.long), am.Linf(0.1))


def test_the_command_line_reads_them(ours):
    made = words.attack(f"AdvGAN(generator={ours!r})")
    assert made == am.AdvGAN(generator=ours)
    assert words.attack("NAG(steps=3)") == am.NAG(steps=3)
    with pytest.raises(InputError, match="generator"):
        words.attack("AdvGAN(generator=3)")


def test_as_a_part_of_a_union(ours):
    """What a learned attack breaks first costs one forward, and no gradient of the attack that follows."""
    both, _ = attacked(am.Union(am.AdvGAN(generator=ours), am.PGD(steps=10)), am.Linf(0.1))
    first = both.part == 0
    assert first.any()
    assert (both.part == 1).any()
    assert not both.backwards[first].any()
    assert (both.forwards[first] == 1).all()


def test_a_change_of_the_file_changes_the_attack(tmp_path):
    path = tmp_path / "g.safetensors"
    outs = []
    for seed in (1, 2):
        kept(path, build_changes(Outline(shape=SHAPE), seed))
        outs.append(attacked(am.AdvGAN(generator=str(path)), am.Linf(0.2))[0].x_adv)
    assert not torch.equal(*outs)


def test_the_attack_asks_only_for_the_goal_that_it_is_given(ours):
    """Rows that were wrong already are left alone, as with any attack."""
    x, model = inputs(SHAPE), Affine(SHAPE, 10, seed=3)
    wrong = Untargeted((model(x).argmax(1) + 1) % 10)
    out = am.engine.run(am.AdvGAN(generator=ours), model, x, wrong, am.Linf(0.3))
    assert not out.forwards.any()
    assert torch.equal(out.x_adv, x)
