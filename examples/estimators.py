"""A pipeline of scikit-learn through its exact gradient, a random forest by its scores, and a rule by its labels."""

from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import adamant as am
from adamant.access import sight
from adamant.models import BlackBox, LabelsOf

train, test = am.load_data("digits", split="train"), am.load_data("digits", split="test", limit=60)
rows, classes = train.x.flatten(1).numpy(), train.y.numpy()  # as an estimator is fitted: one flat row for each input
threat = am.Linf(0.1)

pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300)).fit(rows, classes)
forest = RandomForestClassifier(25, random_state=0).fit(rows, classes)
words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def rule(x):
    """Any function: from a batch of inputs, here as numpy has them, to probabilities, scores or labels."""
    return [words[label] for label in forest.predict(x.reshape(len(x), -1))]


models = {
    "pipeline": am.load_model(pipeline),
    "forest": am.load_model(forest),
    "rule": BlackBox(rule, output=LabelsOf(words)),
}
attacks = {"pipeline": am.PGD(steps=20), "forest": am.Square(steps=100), "rule": am.RayS(steps=100)}
for name, model in models.items():
    out = am.attack(attacks[name], model, test.x, test.y, threat)
    queries = f", {model.queries:,} rows asked" if isinstance(model, BlackBox) else ""
    print(f"{name:8} shows its {sight(model).name.lower():8} {out.robust_accuracy:6.1%} stand{queries}")

# What does not fit is refused, with the list of what does.
try:
    am.attack(am.PGD(), models["forest"], test.x, test.y, threat)
except am.AdamantError as error:
    print(f"refused: {error}")
