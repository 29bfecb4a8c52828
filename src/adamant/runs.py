"""Run folders: what an audit or a training run leaves behind, and the page that is made of it."""

from __future__ import annotations

import json
import math
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w
import torch
from torch import nn

import adamant
from adamant.data import DataSet, Stream
from adamant.errors import RunError
from adamant.evaluation import Audit, difference, forget_parts, write_tables
from adamant.evaluation.doctor import Finding, Verdict
from adamant.files import make_folder, write_whole
from adamant.models import count_parameters
from adamant.report import read_result, write_page
from adamant.report.generation import Shown, write_generation_page
from adamant.training import Job, Report
from adamant.values import brief

Config = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Story:
    """What a run folder says beside its figures: the model's name and facts, and how to run it again."""

    name: str
    model: Config
    config: Config
    command: str
    device: torch.device
    identity: str | None = None  # of an audit: what must be the same for it to be the same one


def provenance(command: str, device: torch.device) -> dict[str, Any]:
    """Versions, machine, date and the command: what a reviewer needs to run it again."""
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "device": f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
    }


def device_of(model: nn.Module) -> torch.device:
    """Where the model is."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def facts_of_model(spec: str, model: nn.Module, notes: tuple[str, ...] = ()) -> dict[str, Any]:
    """The model's lines in result.json."""
    return {"spec": spec, "parameters": count_parameters(model), "notes": list(notes)}


def facts_of_data(data: DataSet | Stream) -> dict[str, Any]:
    """The data's lines in result.json."""
    return {
        "spec": data.name,
        "split": data.split,
        "rows": len(data.y),
        "classes": list(data.classes),
        "shape": list(data.x.shape[1:]),
        "notes": list(data.notes),
    }


def write_audit(
    folder: Path, audit: Audit, data: DataSet | Stream, story: Story, findings: Sequence[Finding] = ()
) -> dict[str, Any]:
    """All files of an audit's folder; returns what result.json says."""
    summary = audit.summary()
    alarms = [f"{f.id} ({f.name}): {f.measured}. {f.advice}" for f in findings if f.verdict >= Verdict.WARN]
    result = {
        "schema": "adamant.audit/1",
        "adamant": adamant.__version__,
        "name": story.name,
        "model": story.model,
        "data": facts_of_data(data),
        **summary,
        "warnings": [*summary["warnings"], *alarms],
        "diagnostics": [_line(f) for f in findings],
        "provenance": {**provenance(story.command, story.device), "identity": story.identity},
    }
    write_tables(make_folder(folder), audit.rows, audit.broken)
    _write(folder, story.config, result)
    forget_parts(folder)
    write_page([folder], folder / "report.html")
    return result


def finished(folder: Path, identity: str) -> dict[str, Any] | None:
    """What result.json says, where this audit is finished there; None where there is something left to do.

    Raises RunError where the folder holds another audit that is finished.
    """
    if (folder / "parts").exists() or not (folder / "result.json").exists():
        return None
    read_result(folder)
    result: dict[str, Any] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    theirs = str(result["provenance"].get("identity") or "")
    if not theirs:  # written before audits said who they are
        return None
    if (was := _but_for_chunks(theirs)) != (now := _but_for_chunks(identity)):
        raise RunError(
            f"{folder} holds another audit, which is finished. {difference(was, now)} Give another --out, or leave "
            "--resume out to replace it."
        )
    if not (folder / "report.html").exists():
        write_page([folder], folder / "report.html")
    return result


def _but_for_chunks(identity: str) -> str:
    """How the rows were cut decides what can be continued, and nothing in the tables."""
    return " | ".join(p for p in identity.split(" | ") if not p.startswith("chunks of "))


def _line(finding: Finding) -> dict[str, Any]:
    number = finding.number if finding.number is not None and math.isfinite(finding.number) else None
    return {**asdict(finding), "number": number, "verdict": finding.verdict.name}


def write_training(folder: Path, job: Job, report: Report, data: DataSet, story: Story) -> dict[str, Any]:
    """result.json, config.toml and the page of a training run; the weights are the caller's to save."""
    recipe = job.recipe
    result = {
        "schema": "adamant.training/1",
        "adamant": adamant.__version__,
        "name": story.name,
        "recipe": brief(recipe),
        "formula": recipe.formula,
        "source": recipe.source,
        "cost_per_step": recipe.cost,
        "threat": {
            "repr": brief(job.threat),
            "norm": type(job.threat).__name__,
            "eps": getattr(job.threat, "eps", None),
        },
        "data": facts_of_data(data),
        "model": story.model,
        "seed": job.seed,
        "epochs": list(report.epochs),
        "best_epoch": report.best_epoch,
        "events": list(report.events),
        "validation_rows": min(len(job.validation.y), job.plan.select_rows),
        "seconds": round(report.seconds, 3),
        "provenance": provenance(story.command, story.device),
    }
    _write(folder, story.config, result)
    write_page([folder], folder / "report.html")
    return result


def write_generation(folder: Path, facts: Mapping[str, Any], shown: Shown, story: Story) -> dict[str, Any]:
    """result.json, config.toml and the page of a generation run; networks and samples are the caller's to save."""
    result = {
        "schema": "adamant.generation/1",
        "adamant": adamant.__version__,
        "name": story.name,
        "model": story.model,
        **facts,
        "provenance": provenance(story.command, story.device),
    }
    _write(folder, story.config, result)
    write_generation_page(folder / "report.html", result, shown)
    return result


def _write(folder: Path, config: Config, result: Config) -> None:
    make_folder(folder)
    write_whole(folder / "config.toml", tomli_w.dumps({k: v for k, v in config.items() if v is not None}))
    write_whole(folder / "result.json", json.dumps(result, indent=1, ensure_ascii=False) + "\n")


def read_config(path: Path) -> dict[str, Any]:
    """The settings of an earlier run; raises RunError where there are none."""
    import tomllib

    path = path / "config.toml" if path.is_dir() else path
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise RunError(
            f"The configuration {path} cannot be read: {error.strerror}; give a config.toml, or a folder with one."
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise RunError(f"{path} is no valid TOML ({error}): give the config.toml of an earlier run.") from error


def command_line() -> str:
    """The command that started this process, as one would type it."""
    import shlex

    name = Path(sys.argv[0])
    own = name.name in ("__main__.py", "main.py") and "adamant" in name.parts  # python -m adamant
    return shlex.join(["adamant" if own else name.name, *sys.argv[1:]])
