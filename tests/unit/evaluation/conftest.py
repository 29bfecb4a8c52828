"""A small network on the digits, and short forms of everything that takes long."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from adamant.adversary import Composite
from adamant.data import load_data
from adamant.evaluation import Course, Suite


class Small(nn.Module):
    """One hidden layer on 64 pixels."""

    def __init__(self, classes=10):
        super().__init__()
        self.one, self.two = nn.Linear(64, 24), nn.Linear(24, classes)

    def forward(self, x):
        return self.two(self.one(x.flatten(1)).relu())


@pytest.fixture(scope="session")
def digits():
    """Makes a trained network and so many rows of so many classes."""
    made = {}

    def make(rows=24, classes=10):
        if classes not in made:
            train, test = (load_data("digits", split=s) for s in ("train", "test"))
            torch.manual_seed(0)
            net = Small(classes)
            x, y = train.x[train.y < classes], train.y[train.y < classes]
            adam = torch.optim.Adam(net.parameters(), 0.01)
            for _ in range(60):
                adam.zero_grad()
                nn.functional.cross_entropy(net(x), y).backward()
                adam.step()
            keep = (test.y < classes).nonzero().squeeze(1)
            made[classes] = net.eval(), test, keep
        net, test, keep = made[classes]
        at = keep[:rows]
        return net, replace(test.take(at), classes=tuple(test.classes[:classes]))

    return make


def short(part, steps=2):
    """The same attack with few steps, at any depth."""
    if isinstance(part, Composite):
        inner = tuple(short(a, steps) for a in part.parts)
        if hasattr(part, "attacks"):
            more = {"gain": part.gain} if hasattr(part, "gain") else {}
            return type(part)(*inner, **more)
        return replace(part, attack=inner[0])
    return replace(part, steps=min(part.steps, steps)) if "steps" in part.__dataclass_fields__ else part


def shortened(suite, steps=2):
    """The same suite, of such attacks."""
    others = tuple(Course(tuple(short(a, steps) for a in c.attacks), c.names, c.threats) for c in suite.others)
    return Suite(suite.name, tuple(short(a, steps) for a in suite.attacks), suite.when, others)
