"""Learned attacks keep every promise, with generators that were made for the shapes of the cases and never trained."""

import pytest
import torch

from adamant import L0, L1, L2, NAG, AdvGAN, Linf
from adamant.testing import EVERY, ONCE, Member, cases
from tests.unit.models.changes import kept, wild

SHAPES = ((12,), (3, 4, 4))
THREATS = (Linf(0.15), L2(0.6), L1(1.5), L0(4))


@pytest.fixture(scope="module")
def member(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generators")

    def made(kind, shape):
        noise = 4 if kind is NAG else 0
        path = kept(folder / f"{kind.__name__}-{len(shape)}.safetensors", wild(shape, noise=noise))
        attack = NAG(generator=path, steps=3) if kind is NAG else AdvGAN(generator=path)
        return Member(attack=attack, threats=THREATS, reach=None, random=False)

    return made


def _name(value):
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize("shape", SHAPES, ids=_name)
@pytest.mark.parametrize("kind", [AdvGAN, NAG], ids=_name)
def test_promises_of_every_case(member, kind, shape):
    for case in cases(member(kind, shape)):
        if case.shape == shape:
            for promise in EVERY:
                promise(case)


@pytest.mark.parametrize("promise", ONCE, ids=_name)
@pytest.mark.parametrize("kind", [AdvGAN, NAG], ids=_name)
def test_promises_of_every_threat(member, kind, promise):
    shape = (3, 4, 4)
    for case in cases(member(kind, shape)):
        if case.shape == shape and case.dtype == torch.float32 and case.classes == 10:
            promise(case)
