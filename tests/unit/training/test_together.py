"""Two processes train what one trains, and remember the same."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from adamant.attacks import FGSM, PGD
from adamant.calling import untouched
from adamant.data import load_data
from adamant.engine import perturb
from adamant.errors import InputError
from adamant.goals import Untargeted
from adamant.random import Rng
from adamant.runtime.average import EMA
from adamant.runtime.optimizers import SGD
from adamant.shards import Shard
from adamant.threats import Linf
from adamant.training import recipes
from adamant.training.fit import fit
from adamant.training.outer import CE
from adamant.training.parts import Batch, Memory
from adamant.training.plan import Plan
from adamant.training.recipes import Recipe
from adamant.training.step import Job
from adamant.training.weights import AWP

DIGITS = load_data("digits", split="train")
TRAIN, VALID, MORE = (DIGITS.take(torch.arange(*part)) for part in ((0, 96), (96, 128), (200, 240)))
QUICK = PGD(steps=2, rate=0.6)
TINY = Plan(epochs=2, batch_size=16, select=FGSM(), save_every=0.0, select_rows=31, optimizer=SGD(0.05))


@dataclass(frozen=True)
class Recall:
    """Steps on from where each row stood when it was last drawn, and counts its visits and those of the run."""

    cost: int = 2

    def __call__(self, model: nn.Module, batch: Batch, threat, memory: Memory) -> dict[str, Tensor]:
        if "delta" not in memory:
            memory["delta"] = torch.zeros(136, *batch.x.shape[1:])
            memory["visits"] = torch.zeros(2, 136, dtype=torch.int64)
            memory["seen"] = torch.zeros(())
            memory["never"] = torch.zeros(3)
        z = threat.project(batch.x + memory["delta"][batch.places], batch.x)
        z = perturb(FGSM(), model, z, Untargeted(batch.y), Linf(0.02), rng=batch.rng)
        z = threat.project(z, batch.x)
        memory["delta"][batch.places] = z - batch.x
        memory["visits"][1, batch.places] += 1
        memory["seen"] = memory["seen"] + batch.y.double().mean()
        return {"adv": z}


def network(kind: str) -> nn.Sequential:
    middle = [nn.BatchNorm1d(16)] if kind == "norm" else []
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), *middle, nn.ReLU(), nn.Linear(16, 10))
    with torch.no_grad():
        for name, p in model.named_parameters():
            p.copy_(Rng.of(0, 1).fold(name).normal(*p.shape)[0] * 0.2)
    return model


RUNS: dict[str, tuple[Recipe, dict]] = {
    "madry": (recipes.madry(attack=QUICK, average=EMA(0.9)), {}),
    "trades": (recipes.trades(attack=replace(recipes.trades().inner.attack, steps=3)), {"epochs": 1}),
    "awp": (recipes.madry(attack=QUICK, weights=AWP(0.01)), {"clip": 0.5, "l1": 1e-3}),
    "pool": (recipes.augmented(keep=2), {"extra": 0.25}),
    "recall": (Recipe(name="recall", source="", inner=Recall(), outer=CE("adv")), {"extra": 0.25}),
    "probe": (recipes.madry(attack=QUICK), {"probe": 0.3}),
    "adaptive": (recipes.mixed(attack=QUICK, adaptive=0.3), {"epochs": 1}),
    "norm": (recipes.madry(attack=QUICK, average=EMA(0.9)), {}),
}


def job(kind: str, **settings) -> Job:
    recipe, plan = RUNS[kind]
    made = {"model": network(kind), "plan": replace(TINY, **plan), **settings}
    extra = MORE if made["plan"].extra else None
    return Job(data=TRAIN, validation=VALID, threat=Linf(0.1), recipe=recipe, extra=extra, **made)


def main(folder: Path) -> None:
    """What each of two processes does: every run, and an attack through the wrapper."""
    shard = Shard.here()
    for kind in RUNS:
        made = job(kind, folder=folder / kind)
        report = fit(made)
        save_file(dict(made.model.state_dict()), folder / f"{kind}.{shard.rank}.safetensors")
        (folder / f"{kind}.{shard.rank}.json").write_text(json.dumps([e["robust"] for e in report.epochs]))
    model = network("madry")
    wrapped = nn.parallel.DistributedDataParallel(model, static_graph=True)
    x, y = TRAIN.x[:16], TRAIN.y[:16]
    nn.functional.cross_entropy(wrapped(x), y).backward()
    with untouched(wrapped):
        z = perturb(QUICK, wrapped, x, Untargeted(y), Linf(0.1), rng=Rng.of(0, 16))
    assert all(p.grad is not None for p in model.parameters())
    save_file({"z": z}, folder / f"attack.{shard.rank}.safetensors")
    del wrapped
    shard.leave()


SCRIPT = """
import importlib.util, pathlib, sys, torch
spec = importlib.util.spec_from_file_location("pair", {file!r})
pair = importlib.util.module_from_spec(spec)
sys.modules["pair"] = pair
spec.loader.exec_module(pair)
torch.set_num_threads(1)
"""


def torchrun(script: Path, *args: object) -> "subprocess.Popen[str]":
    words = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0", "--standalone", str(script)]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return subprocess.Popen([sys.executable, *words, *map(str, args)], env=env, stderr=subprocess.PIPE, text=True)


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pair")
    script = folder / "script.py"
    script.write_text(SCRIPT.format(file=__file__) + "pair.main(pathlib.Path(sys.argv[1]))\n")
    process = torchrun(script, folder)
    _, err = process.communicate(timeout=100)
    assert process.returncode == 0, err[-3000:]
    return folder


@pytest.mark.parametrize("kind", [k for k in RUNS if k != "norm"])
def test_two_processes_train_what_one_trains(kind, pair, tmp_path) -> None:
    made = job(kind, folder=tmp_path)
    report = fit(made)
    one, two = (load_file(pair / f"{kind}.{rank}.safetensors") for rank in (0, 1))
    for name, value in made.model.state_dict().items():
        assert torch.equal(one[name], two[name]), name
        assert float((one[name] - value).norm() / value.norm()) < 1e-5, name
    robust = [json.loads((pair / f"{kind}.{rank}.json").read_text()) for rank in (0, 1)]
    assert robust[0] == robust[1]
    assert robust[0] == pytest.approx([e["robust"] for e in report.epochs], abs=0.04)
    alone, together = (load_file(p / "checkpoint.safetensors") for p in (tmp_path, pair / kind))
    assert alone.keys() == together.keys()
    for name, value in alone.items():
        if name.startswith(("memory", "good/memory", "mean")):
            assert torch.allclose(together[name].double(), value.double(), atol=1e-5), name
    if kind == "recall":
        assert torch.equal(together["memory/visits"], alone["memory/visits"])
        assert int(alone["memory/visits"].sum()) > 250


def test_statistics_of_batches_are_the_mean_of_the_processes(pair) -> None:
    made = job("norm")
    fit(made)
    one, two = (load_file(pair / f"norm.{rank}.safetensors") for rank in (0, 1))
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert torch.allclose(one["2.running_mean"], made.model[2].running_mean, atol=0.05)


def test_the_first_alone_writes(pair) -> None:
    names = {p.name for p in (pair / "madry").iterdir()}
    assert names == {"checkpoint.safetensors", "log.jsonl"}
    lines = [json.loads(line) for line in (pair / "madry" / "log.jsonl").read_text().splitlines()]
    assert [e["what"] for e in lines] == ["start", "epoch", "epoch", "end"]
    assert lines[0]["processes"] == 2


def test_an_attack_goes_through_the_module_and_not_the_wrapper(pair) -> None:
    model, x, y = network("madry").eval(), TRAIN.x[:16], TRAIN.y[:16]
    with untouched(model):
        z = perturb(QUICK, model, x, Untargeted(y), Linf(0.1), rng=Rng.of(0, 16))
    for rank in (0, 1):
        assert torch.equal(load_file(pair / f"attack.{rank}.safetensors")["z"], z)


@pytest.mark.slow
def test_two_processes_are_stopped_and_go_on_bit_for_bit(pair, tmp_path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        SCRIPT.format(file=__file__)
        + "import time\n"
        + "folder, resume = pathlib.Path(sys.argv[1]), len(sys.argv) > 2\n"
        + "def watch(step, *_):\n    (folder / f'at{step}').touch()\n    time.sleep(0 if resume else 0.2)\n"
        + "job = pair.job('norm', folder=folder, resume=resume, watch=watch)\n"
        + "pair.fit(job)\n"
        + "pair.Shard.here().leave()\n"
        + "pair.save_file(dict(job.model.state_dict()), folder / f'{pair.Shard.here().rank}.safetensors')\n"
    )
    process = torchrun(script, tmp_path)
    deadline = time.monotonic() + 60
    while not (tmp_path / "at3").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["what"] == "stopped"
    again = torchrun(script, tmp_path, "--resume")
    _, err = again.communicate(timeout=60)
    assert again.returncode == 0, err[-3000:]
    for rank in (0, 1):
        whole, resumed = load_file(pair / f"norm.{rank}.safetensors"), load_file(tmp_path / f"{rank}.safetensors")
        assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_a_batch_that_processes_cannot_share_evenly(monkeypatch) -> None:
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match="16 rows cannot be shared evenly by 3 processes"):
        fit(job("madry"))
