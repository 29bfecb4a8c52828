"""The one file that imports transformers: classifiers of Hugging Face, from a folder of yours or as objects."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from adamant.errors import InputError, MissingExtraError, ModelError, first_line
from adamant.models.ask import Ask
from adamant.models.prepared import Embedded, Pictures, Preparation, Waveforms, from_config
from adamant.random import Rng, sealed

_CONFIG = "preprocessor_config.json"


def open_huggingface(spec: Any, ask: Ask) -> nn.Module:
    """A classifier of transformers, from "hf:FOLDER" or as an object, with its preprocessing inside.

    Image models take pictures in [0, 1], audio models waveforms, text models the embeddings of `Embedded`. Where the
    person gives a mean and std, they stand for those of the image processor. Weights are read from safetensors only,
    code that a folder carries is never run, and nothing is downloaded.
    """
    if not isinstance(spec, str):
        return wrap_huggingface(spec, None, keep_scale=bool(ask.mean))
    where = spec.removeprefix("hf:")
    model = _loaded(where)
    return wrap_huggingface(model, _processor(where), keep_scale=bool(ask.mean))


def _transformers(spec: str) -> Any:
    try:
        return cast(Any, import_module("transformers"))
    except ImportError as error:
        raise MissingExtraError(
            f"{spec} needs transformers, which cannot be imported ({error}): pip install adamant[huggingface]."
        ) from error


def _loaded(where: str) -> Any:
    hub = _transformers(f"hf:{where}")
    try:
        config = hub.AutoConfig.from_pretrained(where, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers has no error of its own for this
        raise InputError(
            f"hf:{where} cannot be read: there is no config.json of a model that transformers {hub.__version__} reads,"
            f" neither in the folder {where!r} nor in the local cache ({first_line(error)}). Nothing is downloaded, "
            "and code that comes with a model is not run."
        ) from error
    name = next(iter(config.architectures or []), "")
    kind = getattr(hub, name, None)
    if kind is None or "Classification" not in name or "Token" in name:
        raise InputError(
            f"hf:{where} holds {name or 'no named architecture'}, which is no classifier of whole inputs; give a model "
            "for image, audio or sequence classification."
        )
    _safe(where)
    try:
        with sealed(0):
            made, told = kind.from_pretrained(
                where, local_files_only=True, use_safetensors=True, attn_implementation="eager",
                output_loading_info=True,
            )  # fmt: skip
    except Exception as error:
        raise ModelError(f"hf:{where} cannot be loaded: {first_line(error)}") from error
    if lacking := sorted(told["missing_keys"]):
        raise ModelError(
            f"hf:{where} lacks weights of {name} ({', '.join(lacking[:3])}), which would be random; give the folder of "
            "a model that was trained to classify."
        )
    return made.float()  # weights that were saved in half precision stay so, and every success is judged in float32


def _safe(where: str) -> None:
    folder = Path(where)
    if folder.is_dir() and not any(folder.glob("*.safetensors")):
        found = ", ".join(sorted(p.name for p in folder.glob("*.bin"))) or "no weights at all"
        raise ModelError(
            f"hf:{where} holds {found}, and no safetensors. A .bin file is a pickle, which can run any code, so "
            "adamant does not open it; where you trust it, load it yourself and call save_pretrained, which writes "
            "safetensors."
        )


def _processor(where: str) -> dict[str, Any] | None:
    """preprocessor_config.json, of the folder or of the cache."""
    path: Any = Path(where) / _CONFIG
    if not Path(where).is_dir():
        path = import_module("transformers.utils").cached_file(
            where, _CONFIG, local_files_only=True, _raise_exceptions_for_missing_entries=False
        )
    if path is None or not Path(path).is_file():
        return None
    try:
        return cast(dict[str, Any], json.loads(Path(path).read_text()))
    except ValueError as error:
        raise InputError(f"{path} is not readable JSON ({error}); save the processor again.") from error


def wrap_huggingface(model: Any, processor: dict[str, Any] | None, *, keep_scale: bool = False) -> nn.Module:
    """The classifier with its preprocessing inside; `processor` is what preprocessor_config.json holds.

    With `keep_scale` mean and std are left to the caller. Raises `InputError` for what takes no pictures, waveforms
    or texts, `ModelError` for a text model that answers otherwise to embeddings than to tokens.
    """
    name, takes = type(model).__name__, str(getattr(model, "main_input_name", ""))
    if takes == "pixel_values":
        return _pictures(model, processor, keep_scale)
    if takes == "input_features" or hasattr(model.config, "num_mel_bins"):
        raise InputError(
            f"{name} takes log-mel spectrograms, whose units are not those of a sound; put the step from the waveform "
            "to the spectrogram before it as a torch module, and hand over both as one."
        )
    if takes == "input_values":
        normal = bool((processor or {}).get("do_normalize", True))
        said = "as its feature extractor says" if processor else "without a feature extractor beside it, as is usual"
        done = "each brought to mean 0 and variance 1 inside" if normal else "as they are"
        return Waveforms(
            model, normal=normal, keyword=takes, notes=(f"{name} takes waveforms, {done}, {said}.",)
        ).eval()  # fmt: skip
    if takes == "input_ids":
        return _embedded(model)
    takes = takes or "inputs without a name"
    raise InputError(f"{name} takes {takes}, and adamant knows pictures, waveforms and texts.")


def _pictures(model: Any, processor: dict[str, Any] | None, keep_scale: bool) -> nn.Module:
    name = type(model).__name__
    if processor is None:
        note = f"There is no {_CONFIG} with {name}: inputs go in as they are (mean and std, where needed, are yours)."
        return Pictures(model, Preparation(), keyword="pixel_values", notes=(note,)).eval()
    if processor.get("include_top") or processor.get("do_pad"):
        odd = "include_top" if processor.get("include_top") else "do_pad"
        raise InputError(
            f"The image processor of {name} has a step that is not known here ({odd}); prepare the pictures in a torch "
            "module of your own around the model."
        )
    way = from_config(processor)
    if keep_scale:
        way = Preparation(resized=way.resized, cut=way.cut, way=way.way)
        note = f"{name}: the mean and std that were given stand for those of its image processor."
    else:
        note = f"{name} takes pictures in [0, 1]; the preparation of its image processor is inside: {way}."
    return Pictures(model, way, keyword="pixel_values", notes=(note,)).eval()


def _embedded(model: Any) -> nn.Module:
    """The text model on embeddings, once it is known to answer as it does to tokens, padded ones too."""
    name = type(model).__name__
    made = Embedded(model, notes=(f"{name} is asked by embeddings.",)).eval()
    pad = model.config.pad_token_id
    words = int(model.config.vocab_size)
    ids = Rng.of(0, 2).fold("probe").integers(words, 6)
    ids = torch.where(ids == (pad or 0), (ids + 1) % words, ids)
    mask = torch.ones_like(ids)
    if pad is not None:
        ids[1, 4:], mask[1, 4:] = pad, 0
    device = next(model.parameters()).device
    ids, mask = ids.to(device), mask.to(device)
    try:
        with torch.no_grad():
            want, got = model(input_ids=ids, attention_mask=mask).logits, made(made.embed(ids, mask))
        apart = float((want - got).abs().max() / want.abs().max().clamp_min(1e-30))
    except Exception as error:
        raise ModelError(
            f"{name} cannot be asked by embeddings ({first_line(error)}), so no gradient by them can be had."
        ) from error
    if not apart <= 1e-4:
        raise ModelError(
            f"{name} answers otherwise to embeddings than to the same tokens (by {apart:.0e} of the largest logit), as "
            "models do that look for the padding among the tokens; it cannot be attacked by embeddings."
        )
    return made
