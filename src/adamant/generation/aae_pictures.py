"""What people look at: samples, rebuilt inputs, ways from one input to another, styles by classes, and the codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from adamant.generation.aae_labels import Clustered, Told
from adamant.generation.aae_measures import encoded
from adamant.generation.base import Material
from adamant.generation.pictures import COLUMNS, Grid, Map, below
from adamant.random import Rng

if TYPE_CHECKING:
    from adamant.generation.aae import AAE

_POINTS = 2000


def by_class(game: AAE, networks: nn.Module, material: Material, seed: int) -> Grid:
    """A row for each class, of the same ten draws of the style; samples of no class where the decoder hears of none."""
    device = next(networks.parameters()).device
    known = game.labels.count if isinstance(game.labels, Clustered) else material.classes
    y = torch.arange(known * COLUMNS, device=device) // COLUMNS
    rng = Rng.of(seed, known * COLUMNS).to(device).fold("show")
    if not isinstance(game.labels, Clustered) and not game.conditional:
        return Grid(title="Samples", x=game.sample(networks, rng), columns=COLUMNS)
    heads = game.heads(material.classes)
    if not (heads.told + heads.guess):  # the class is a place in the code, so that styles differ from class to class
        return Grid(title="Samples of each class", x=game.sample(networks, rng, y), columns=COLUMNS)
    style = game.prior.draw(Rng.of(seed, COLUMNS).to(device).fold("show")).repeat(known, 1)
    return Grid(title="Styles by classes", x=game.decode(networks, style, y), columns=COLUMNS)


def rebuilt(game: AAE, networks: nn.Module, material: Material) -> Grid:
    """Held-out inputs, and below each what is rebuilt from its code."""
    device = next(networks.parameters()).device
    rows = material.validation
    x, y = rows.x[: 3 * COLUMNS].to(device), rows.y[: 3 * COLUMNS].to(device)
    return below(x, game.reconstruct(networks, x, y), "Held-out inputs, and as they are rebuilt")


def between(game: AAE, networks: nn.Module, material: Material) -> Grid:
    """From one held-out input to another, straight through the codes."""
    device = next(networks.parameters()).device
    rows = material.validation
    n = min(COLUMNS, len(rows) // 2)
    x, y = rows.x[: 2 * n].to(device), rows.y[: 2 * n].to(device)
    style, weights = game.heard(networks, x, y)
    ways = torch.linspace(0, 1, COLUMNS, device=device)[None, :, None]
    ends = [(held[:n, None] * (1 - ways) + held[n:, None] * ways).flatten(0, 1) for held in (style, weights)]
    return Grid(title="From one input to another", x=networks(*ends), columns=COLUMNS)


def codes(game: AAE, networks: nn.Module, material: Material, seed: int) -> Map:
    """Where held-out inputs lie, by class, beside draws of the prior; of longer codes the two widest directions."""
    device = next(networks.parameters()).device
    rows = material.validation
    x, y = rows.x[:_POINTS].to(device), rows.y[:_POINTS]
    found = encoded(game, networks, x)[0].double().cpu()
    drawn = game.prior.draw(Rng.of(seed, len(x)).fold("map")).double()
    if found.shape[1] > 2:
        _, _, axes = torch.linalg.svd(found - found.mean(0), full_matrices=False)
        found, drawn = found @ axes[:2].T, drawn @ axes[:2].T
    title = "Codes of held-out inputs" + (", the style alone" if isinstance(game.labels, Told) else "")
    return Map(title=title, points=found, y=y.cpu(), drawn=drawn)


def gallery(game: AAE, networks: nn.Module, material: Material, seed: int) -> tuple[Grid | Map, ...]:
    """All of them; without the grids where inputs are no pictures."""
    held = codes(game, networks, material, seed)
    if len(material.shape) != 3:
        return (held,)
    return (
        by_class(game, networks, material, seed),
        rebuilt(game, networks, material),
        between(game, networks, material),
        held,
    )
