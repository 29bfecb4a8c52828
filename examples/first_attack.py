"""A first attack: train a small network on handwritten digits, then change its mind."""

import adamant as am
from adamant.models import build
from adamant.training import Adam, Plan

train, test = am.load_data("digits", split="train"), am.load_data("digits", split="test")
threat = am.Linf(0.15)  # every pixel may move by 15 % of the grey scale
plan = Plan(epochs=30, batch_size=64, optimizer=Adam(rate=3e-3))
model = am.train(build("zoo:small-cnn", shape=(1, 8, 8), classes=10), train, am.recipes.standard(), threat, plan=plan)

for attack in (am.FGSM(), am.PGD(steps=40)):
    out = am.attack(attack, model, test.x, test.y, threat)
    forwards, backwards, checks = (int(n.sum()) for n in (out.forwards, out.backwards, out.checks))
    print(f"{attack}: {out.success_rate:.1%} of the digits that the model had right are broken,")
    print(f"    robust accuracy {out.robust_accuracy:.1%}, largest change {out.size.max():.4f}")
    print(f"    {forwards} forwards, {backwards} backwards, {checks} checks")
