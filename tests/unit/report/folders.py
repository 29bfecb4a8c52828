"""Synthetic run folders: seeded, realistic, and small."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from safetensors.numpy import save_file
from scipy.stats import binomtest
from sklearn.datasets import load_digits

FLOAT = np.float32


def accuracy(correct: int, rows: int) -> dict[str, Any]:
    ends = binomtest(correct, rows).proportion_ci(method="wilson")
    return {"accuracy": correct / rows, "low": ends.low, "high": ends.high, "correct": correct, "rows": rows}


def provenance(command: str) -> dict[str, Any]:
    return {
        "command": command,
        "date": "2026-11-20T15:00:00+00:00",
        "python": "3.11.7",
        "torch": "2.13.0",
        "platform": "Linux-6.1-x86_64",
        "device": "cpu",
        "threads": 2,
        "identity": "seed 0",
    }


def pictures(rows: int, kind: str = "grey") -> tuple[np.ndarray, np.ndarray]:
    digits = load_digits()
    x = (digits.images[:rows, None] / 16).astype(FLOAT)
    if kind == "colour":
        x = np.concatenate([x, x[:, :, ::-1], x[:, :, :, ::-1]], axis=1)
    if kind == "vector":
        x = x.reshape(rows, 64)[:, 18:30].copy()
    if kind == "signal":
        x = np.sin(np.linspace(0, 60, 4000))[None].repeat(rows, 0).astype(FLOAT) * x.mean((1, 2, 3))[:, None]
    return x, digits.target[:rows]


def audit_folder(
    folder: Path,
    *,
    name: str = "small CNN, ordinary",
    rows: int = 120,
    wrong: float = 0.05,
    held: float = 0.15,
    eps: float = 0.1,
    invalid: int = 0,
    out_of_budget: int = 0,
    seed: int = 0,
    kind: str = "grey",
    classes: Sequence[str] = tuple("0123456789"),
    notes: Sequence[str] = (),
    warnings: Sequence[str] = (),
    threat: str | None = None,
) -> Path:
    rng = np.random.default_rng(seed)
    x, y = pictures(rows, kind)
    draw = rng.random(rows)
    status = np.where(draw < wrong, "wrong_already", np.where(draw < wrong + held, "robust", "broken")).astype(object)
    standing = np.flatnonzero(status == "robust")
    status[standing[:invalid]] = "invalid"
    status[standing[invalid : invalid + out_of_budget]] = "out_of_budget"
    counts = {s: int((status == s).sum()) for s in ("wrong_already", "robust", "broken", "out_of_budget", "invalid")}
    broken = np.flatnonzero(status == "broken")
    guess = np.where(status == "wrong_already", (y + 1) % 10, y)
    attacks = ("FGSM()", "PGD(steps=40)", "APGD(steps=100, loss=DLR())")
    by = rng.integers(0, 3, rows)
    columns = {
        "row": list(range(rows)),
        "label": y.tolist(),
        "clean_prediction": guess.tolist(),
        "clean_confidence": rng.uniform(0.6, 1, rows).tolist(),
        "status": status.tolist(),
        "attack": [attacks[by[i]] if status[i] == "broken" else None for i in range(rows)],
        "adversarial_prediction": [int((y[i] + 3) % 10) if status[i] == "broken" else None for i in range(rows)],
        "adversarial_confidence": [
            float(rng.uniform(0.4, 0.99)) if status[i] == "broken" else None for i in range(rows)
        ],
        "size": [eps if status[i] == "broken" else None for i in range(rows)],
        "loss": rng.normal(size=rows).tolist(),
        "forwards": [41] * rows,
        "backwards": [40] * rows,
        "first_success": [int(rng.integers(1, 40)) if status[i] == "broken" else None for i in range(rows)],
        "distance": [0.1 if status[i] == "broken" else None for i in range(rows)],
    }
    noise = eps * np.sign(rng.normal(size=x[broken].shape))
    after = np.clip(x[broken] + noise, -1 if kind == "signal" else 0, 1).astype(FLOAT)
    clean = rows - counts["wrong_already"]
    robust = clean - counts["broken"]
    stages, entered = [], clean
    for i, attack in enumerate(attacks):
        broke = int(((status == "broken") & (by == i)).sum())
        stages.append(
            {
                "attack": attack,
                "recipe": attack,
                "source": ("Goodfellow et al., 2015, arXiv:1412.6572", "Madry et al., 2018, arXiv:1706.06083", None)[i],
                "entered": entered,
                "broke": broke,
                "standing": entered - broke,
                "robust_accuracy": (entered - broke) / rows,
                "forwards": entered * (2, 41, 101)[i],
                "backwards": entered * (1, 40, 100)[i],
                "checks": broke,
                "seconds": 0.4 * 3**i,
            }
        )
        entered -= broke
    curve = []
    for step, at in enumerate(np.linspace(0, 2 * eps, 9)):
        right = round(clean * np.exp(-at / eps * np.log(clean / max(robust, 1)))) if step else clean
        one = accuracy(int(right), rows)
        curve.append(
            {"eps": float(at)}
            | {key: one[key] for key in ("accuracy", "low", "high")}
            | {"attack": "PGD(steps=40)" if step else "clean"}
        )
    per_class = []
    for label, title in enumerate(classes):
        mine = y == label
        n = int(mine.sum())
        entry: dict[str, Any] = {"label": label, "name": title, "rows": n}
        for key, bad in (("clean", ("wrong_already",)), ("robust", ("wrong_already", "broken"))):
            if n:
                one = accuracy(int((mine & ~np.isin(status.astype(str), bad)).sum()), n)
                entry |= {key: one["accuracy"], f"{key}_low": one["low"], f"{key}_high": one["high"]}
        per_class.append(entry)
    result = {
        "schema": "adamant.audit/1",
        "adamant": "0.1.0",
        "name": name,
        "model": {"spec": "zoo:small-cnn", "parameters": 12345, "notes": list(notes)},
        "data": {
            "spec": "digits",
            "split": "test",
            "rows": rows,
            "classes": list(classes),
            "shape": list(x.shape[1:]),
            "notes": [],
        },
        "threat": {"repr": threat or f"Linf({eps:g})", "norm": "Linf", "eps": eps, "allows": None},
        "suite": "standard",
        "access": "WhiteBox()",
        "seed": 0,
        "clean": accuracy(clean, rows),
        "robust": accuracy(robust, rows),
        "stages": stages,
        "curve": curve,
        "diagnostics": [
            {"id": "D5", "name": "zero gradients", "verdict": "PASS", "number": 0.0, "measured": "none", "advice": ""},
            {
                "id": "D6",
                "name": "wrong gradients",
                "verdict": "WARN",
                "number": 0.1,
                "measured": "off",
                "advice": "see",
            },
        ],
        "distance": {"lower": 0.02, "median": 0.05, "upper": None, "censored": 20},
        "per_class": per_class,
        "statuses": counts,
        "cost": {
            "forwards": sum(s["forwards"] for s in stages),
            "backwards": sum(s["backwards"] for s in stages),
            "checks": sum(s["checks"] for s in stages),
            "seconds": sum(s["seconds"] for s in stages),
        },
        "warnings": list(warnings),
        "provenance": provenance(f"adamant audit zoo:small-cnn --data digits --threat linf:{eps:g} --out runs/a"),
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder, result)
    pq.write_table(pa.table(columns), folder / "rows.parquet")
    save_file(
        {"row": broken.astype(np.int64), "original": x[broken], "adversarial": after},
        folder / "adversarial.safetensors",
    )
    return folder


def training_folder(
    folder: Path, *, name: str = "small CNN, hardened", epochs: int = 8, measured: int | None = 120
) -> Path:
    rng = np.random.default_rng(1)
    progress = 1 - np.exp(-np.arange(1, epochs + 1) / 3)
    robust = 0.72 * progress + rng.normal(0, 0.01, epochs)
    result = {
        "schema": "adamant.training/1",
        "adamant": "0.1.0",
        "name": name,
        "recipe": "trades(beta=6)",
        "formula": "CE(f(clean), y) + 6 * KL(f(clean) || f(adv))",
        "source": "Zhang et al., 2019, arXiv:1901.08573",
        "cost_per_step": 23,
        "threat": {"repr": "Linf(0.1)", "norm": "Linf", "eps": 0.1, "allows": None},
        "data": {
            "spec": "digits",
            "split": "train",
            "rows": 1437,
            "classes": list("0123456789"),
            "shape": [1, 8, 8],
            "notes": [],
        },
        "model": {"spec": "zoo:small-cnn", "parameters": 12345, "notes": []},
        "seed": 0,
        "epochs": [
            {
                "epoch": i + 1,
                "step": 45 * (i + 1),
                "loss": float(2.3 * np.exp(-i / 4) + 0.4),
                "rate": 0.01,
                "clean": float(0.96 * progress[i]),
                "robust": float(robust[i]),
                "seconds": 3.1 * (i + 1),
            }
            for i in range(epochs)
        ],
        "best_epoch": int(robust.argmax()) + 1 if epochs else None,
        "seconds": 3.1 * epochs,
        "provenance": provenance("adamant train zoo:small-cnn --data digits --recipe 'trades(beta=6)' --out runs/c"),
    }
    if measured is not None:
        result["validation_rows"] = measured
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder, result)
    return folder


def read_json(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "result.json").read_text())


def write_json(folder: Path, result: dict[str, Any]) -> None:
    (folder / "result.json").write_text(json.dumps(result, indent=1))
