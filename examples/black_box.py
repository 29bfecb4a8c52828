"""Attack a model without its gradients: estimate them from scores, or do without."""

import adamant as am
from adamant.models import build
from adamant.training import Adam, Plan

train, test = am.load_data("digits", split="train"), am.load_data("digits", split="test", limit=100)
threat = am.Linf(0.15)
plan = Plan(epochs=15, batch_size=64, optimizer=Adam(rate=3e-3))
model = am.train(build("zoo:small-cnn", shape=(1, 8, 8), classes=10), train, am.recipes.standard(), threat, plan=plan)

pairs = (
    (am.PGD(steps=20), am.WhiteBox()),  # sees the gradient: the yardstick
    (am.PGD(steps=20), am.NES(n=20, sigma=0.01)),  # 20 queries beside the look itself make one estimate of the gradient
    (am.RandomSearch(steps=300), am.ScoresOnly()),  # compares scores, and that is all
)
for attack, access in pairs:
    out = am.attack(attack, model, test.x, test.y, threat, access=access)
    queries = int(out.forwards.sum()) / max(1, int((out.forwards > 0).sum()))
    print(f"{type(attack).__name__:12} {access!r:28} broke {out.success_rate:6.1%}, {queries:5.1f} queries per digit")

# What does not fit is refused in a sentence.
try:
    am.attack(am.PGD(), model, test.x, test.y, threat, access=am.ScoresOnly())
except am.AdamantError as error:
    print(f"refused: {error}")
