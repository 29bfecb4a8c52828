"""Networks of a game as one safetensors file that says of itself how to build them again."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast, final

import safetensors.torch
from torch import nn

from adamant.errors import InputError, ModelError
from adamant.files import write_whole
from adamant.generation.base import Game, Outlined, Shape
from adamant.generation.catalogue import vocabulary
from adamant.models.generators import CHILD, KEY
from adamant.models.state import read_safetensors
from adamant.values import brief, read

FORMAT = 1


@final
@dataclass(frozen=True, kw_only=True, eq=False)
class Saved:
    """A game with its trained networks, in eval mode, the shape of one input and the names of the classes."""

    game: Game
    networks: nn.Module
    shape: Shape
    classes: tuple[str, ...]


def save(path: str | os.PathLike[str], saved: Saved) -> None:
    """Write a .safetensors file that `load` reads; raises InputError for another ending, RunError for a full disk."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"A game is saved as .safetensors, not as {path.name!r}: end the path in .safetensors.")
    config: dict[str, Any] = {
        "format": FORMAT,
        "game": brief(saved.game),
        "shape": list(saved.shape),
        "classes": list(saved.classes),
    }
    if isinstance(saved.game, Outlined):
        config[CHILD] = saved.game.outline(saved.networks)
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in saved.networks.state_dict().items()}
    # One entry only: safetensors writes several in an order of its own, and equal games are to be equal files.
    write_whole(path, safetensors.torch.save(tensors, metadata={KEY: json.dumps(config, sort_keys=True)}))


def load(path: str | os.PathLike[str]) -> Saved:
    """The game and its networks from the file alone; nothing in it is run as code.

    Raises InputError for a file that is missing or no game's, ModelError for weights that do not fit.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"There is no file {path}: give the .safetensors file of a game.")
    tensors, text = read_safetensors(path, KEY)
    if text is None:
        raise InputError(f"{path} holds no game: give a file that adamant generate wrote.")
    config = _config(path, text)
    game = read(str(config["game"]), vocabulary(), kind="game")
    if not isinstance(game, Game):
        raise InputError(f"{path} says that it holds {config['game']!r}, which is no game.")
    networks = game.build(tuple(config["shape"]), len(config["classes"]), 0)
    try:
        networks.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"The weights in {path} do not fit {config['game']}: {error}.") from error
    networks.requires_grad_(False)
    return Saved(game=game, networks=networks.eval(), shape=tuple(config["shape"]), classes=tuple(config["classes"]))


def _config(path: Path, text: str) -> dict[str, Any]:
    try:
        held = cast(dict[str, Any], json.loads(text))
        if held["format"] != FORMAT:
            raise InputError(f"{path} is of format {held['format']}, and this version reads {FORMAT}.")
        shape, classes = [int(side) for side in held["shape"]], [str(name) for name in held["classes"]]
        return {"game": str(held["game"]), "shape": shape, "classes": classes}
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"What {path} says of itself cannot be read ({error!r} in {text[:80]!r}).") from error
