"""Generators of changes that were never trained, and files of them, for tests that ask what becomes of a change."""

import json

import safetensors.torch
import torch

from adamant.models.generators import Outline, build_changes, described
from adamant.random import Rng


def inputs(shape, n=20):
    return (Rng.of(3, n).uniform(*shape) * 1.5 - 0.25).clamp(0, 1)


def wild(shape, **more):
    """A network whose changes reach their ends."""
    net = build_changes(Outline(shape=shape, **more), 1)
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(3)
    return net


def kept(path, net, **config):
    said = {"adamant.game": json.dumps({"generator": described(net), **config})}
    tensors = {f"generator.{k}": v for k, v in net.state_dict().items()}
    path.write_bytes(safetensors.torch.save(tensors, metadata=said))
    return str(path)
