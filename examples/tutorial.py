"""The tutorial as one script; docs/tutorial.md shows it piece by piece."""

# --8<-- [start:train]
import torch
from torch.nn import functional as F

import adamant as am
from adamant.evaluation import QUICK
from adamant.models import build
from adamant.training import Adam, Plan

train, validation, test = (am.load_data("digits", split=s) for s in ("train", "val", "test"))
threat = am.Linf(0.15)
plan = Plan(epochs=30, batch_size=64, optimizer=Adam(rate=3e-3))
start = build("zoo:small-cnn", shape=(1, 8, 8), classes=10)
model = am.train(start, train, am.recipes.standard(), threat, validation=validation, plan=plan)
print(f"clean accuracy {(model(test.x).argmax(1) == test.y).double().mean():.1%}")
# --8<-- [end:train]

# --8<-- [start:by-hand]
x = test.x.clone().requires_grad_(True)
loss = F.cross_entropy(model(x), test.y, reduction="sum")
(g,) = torch.autograd.grad(loss, x)
x_adv = (test.x + 0.15 * g.sign()).clamp(0, 1)
print(f"FGSM by hand {(model(x_adv).argmax(1) == test.y).double().mean():.1%}")
# --8<-- [end:by-hand]

# --8<-- [start:fgsm]
out = am.attack(am.FGSM(), model, test.x, test.y, threat)
print(f"FGSM {out.robust_accuracy:.1%}")
# --8<-- [end:fgsm]

# --8<-- [start:pgd]
out = am.attack(am.PGD(steps=40), model, test.x, test.y, threat)
print(f"PGD {out.robust_accuracy:.1%}")
# --8<-- [end:pgd]


# --8<-- [start:look]
def drawn(digit: torch.Tensor) -> list[str]:
    return ["".join(" .:-=+*#%@"[int(v * 9.99)] * 2 for v in row) for row in digit[0]]


row = int(out.broken.nonzero()[0])
before, after = (int(model(z[row : row + 1]).argmax()) for z in (test.x, out.x_adv))
print(f"row {row}: a {test.classes[test.y[row]]}, read as {before} before and as {after} after")
for left, right in zip(drawn(test.x[row]), drawn(out.x_adv[row]), strict=True):
    print(f"{left}   |   {right}")
# --8<-- [end:look]

# --8<-- [start:harden]
recipe = am.recipes.madry(attack=am.PGD(steps=5, rate=0.4))
print(recipe.explain())
tough = am.train(start, train, recipe, threat, validation=validation, plan=plan)
# --8<-- [end:harden]

# --8<-- [start:audit]
for name, net in (("ordinary", model), ("hardened", tough)):
    audit = am.audit(net, test, threat, suite=QUICK, out=f"runs/tutorial-{name}")
    print(f"{name}: clean {audit.clean_accuracy:.1%}, robust {audit.robust_accuracy:.1%}")
# --8<-- [end:audit]
