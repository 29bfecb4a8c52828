"""Train a Keras CNN on clean loss + 0.1 x adversarial loss, on augmented pictures; model and data of keras_fgsm.py."""

import os

from keras_fgsm import cnn, rows

import adamant as am
from adamant.evaluation import QUICK
from adamant.runtime.augment import Rotate, Shift
from adamant.training import Adam, Plan

threat = am.Linf(0.1)
recipe = am.recipes.mixed(lam=0.1, attack=am.FGSM())
plan = Plan(
    epochs=int(os.environ.get("EPOCHS", "4")), batch_size=64, optimizer=Adam(rate=2e-3),
    augment=(Rotate(10), Shift(2)),
)  # fmt: skip
print(recipe.explain())
model = am.train(cnn(), rows("train"), recipe, threat, validation=rows("val"), plan=plan)
audit = am.audit(model, rows("test", 500), threat, suite=QUICK)
print(f"clean {audit.clean_accuracy:.1%}, robust {audit.robust_accuracy:.1%}")
model.receive().summary()  # the Keras object, with the weights that were learned
