"""What the tests of learned attacks share: a network of the digits, and games that were played against it."""

from functools import lru_cache

import torch
from torch.nn import functional as F

import adamant as am
from adamant.data import load_data
from adamant.generation.base import Material
from adamant.models import build
from adamant.random import permutation

EPS = 0.15


@lru_cache
def digits(split):
    return load_data("digits", split=split)


@lru_cache
def victim(seed=0):
    """A network that gets 96 % of the validation rows right, in a second."""
    data, net = digits("train"), build("zoo:mlp", shape=(1, 8, 8), classes=10, seed=seed)
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    for epoch in range(25):
        for rows in permutation(len(data), seed, epoch).split(64):
            optimizer.zero_grad()
            F.cross_entropy(net(data.x[rows]), data.y[rows]).backward()
            optimizer.step()
    return net.eval()


def material(net=None, threat=None):
    threat = am.Linf(EPS) if threat is None else threat
    return Material(data=digits("train"), validation=digits("val"), target=net or victim(), threat=threat)
