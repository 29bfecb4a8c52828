"""Train one network twice, the ordinary way and on adversarial examples, and audit both."""

import adamant as am
from adamant.evaluation import QUICK
from adamant.models import build
from adamant.runtime.knobs import Ramp
from adamant.training import EMA, Adam, Plan

threat = am.Linf(0.15)
train, validation, test = (am.load_data("digits", split=s) for s in ("train", "val", "test"))
plan = Plan(epochs=30, batch_size=64, optimizer=Adam(rate=3e-3))
mean = EMA(decay=0.99)  # what is kept is an average of the weights along the way

recipes = (
    am.recipes.standard(average=mean),
    # Five steps of PGD for every batch; the budget grows to its full size over the first part of the run.
    am.recipes.madry(attack=am.PGD(steps=5, rate=0.4), average=mean, eps=Ramp()),
)
print(f"{'recipe':10} {'clean':>7} {'robust':>7}   cost of a step, in forwards per row")
for recipe in recipes:
    start = build("zoo:cnn", shape=(1, 8, 8), classes=10)  # the same first weights for both
    model = am.train(start, train, recipe, threat, validation=validation, plan=plan)
    audit = am.audit(model, test, threat, suite=QUICK)
    print(f"{recipe.name:10} {audit.clean_accuracy:7.1%} {audit.robust_accuracy:7.1%}   {recipe.cost}")
