"""How little suffices? A minimum-norm attack, and the accuracy at every budget from its one run."""

import adamant as am

data = am.load_data("digits", limit=100)
model = am.train(am.load_model("zoo:small-cnn", shape=(1, 8, 8), classes=10), am.load_data("digits", split="train"),
                 am.recipes.standard(), am.Linf(0.1))  # fmt: skip

out = am.attack(am.DDN(steps=100), model, data.x, data.y, am.L2())
print(f"median L2 size of the changes: {out.size[out.broken].median():.2f}")
for eps in (0.0, 0.25, 0.5, 1.0, 2.0):
    print(f"  accuracy within {eps:<4}: {out.accuracy_at(eps):.0%}")
