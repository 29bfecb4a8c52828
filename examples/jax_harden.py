"""Harden a Flax model: torch drives, JAX computes, and the weights come back as a Flax model and as a file."""

import jax.numpy as jnp
import safetensors.numpy
import torch
from flax import nnx, traverse_util

import adamant as am
from adamant.training import Plan


class Net(nnx.Module):
    """Two convolutions, with the channels last."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.first = nnx.Conv(1, 16, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(16, rngs=rngs)
        self.out = nnx.Linear(16 * 16, 10, rngs=rngs)

    def __call__(self, x: jnp.ndarray) -> jnp.ndarray:
        h = nnx.max_pool(nnx.relu(self.norm(self.first(x))), (2, 2), (2, 2))
        return self.out(h.reshape(len(x), -1))


train, test = am.load_data("digits", split="train"), am.load_data("digits", split="test", limit=200)
model = am.load_model(Net(nnx.Rngs(0)), shape=(8, 8, 1))  # a torch module: (rows, 1, 8, 8) to logits
plan = Plan(epochs=8, batch_size=64, select_rows=64)

for recipe in (am.recipes.standard(), am.recipes.madry(attack=am.PGD(steps=5))):
    hardened = am.train(model, train, recipe, am.Linf(0.1), plan=plan)
    found = am.attack(am.PGD(steps=20), hardened, test.x, test.y, am.Linf(0.1))
    print(f"{recipe.name:9s} {found.robust_accuracy:.1%} of the digits stand")

flax_model = hardened.receive()  # your own kind of object again
flax_model.eval()
x = test.x.permute(0, 2, 3, 1).numpy()
logits = torch.tensor(flax_model(x).tolist())
print(f"Flax agrees on {(logits.argmax(1) == hardened(test.x).argmax(1)).float().mean():.0%} of the digits")

am.save_model(hardened, "net.safetensors")
leaves = traverse_util.unflatten_dict(safetensors.numpy.load_file("net.safetensors"), sep="/")
print("in the file:", ", ".join(sorted(leaves)))
