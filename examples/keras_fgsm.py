"""Harden a Keras CNN on FGSM examples, audit it before and after, and save it as a file of Keras.

MNIST where ADAMANT_DATA_DIR has it, else the digits that adamant holds, enlarged. Any backend of Keras will do.
"""

import os
from dataclasses import replace

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras
from keras import layers
from torch.nn.functional import interpolate

import adamant as am
from adamant.data import DataSet
from adamant.evaluation import QUICK
from adamant.training import Adam, Plan


def cnn() -> keras.Model:
    """The network of the tutorials."""
    return keras.Sequential(
        [
            layers.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def rows(split: str, limit: int | None = None) -> DataSet:
    """Pictures (n 1 28 28) with their labels."""
    found = am.load_data("mnist" if "ADAMANT_DATA_DIR" in os.environ else "digits", split=split, limit=limit)
    return replace(found, x=interpolate(found.x, size=28))


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    threat = am.Linf(0.1)
    train, validation, test = rows("train"), rows("val"), rows("test", 500)
    plan = Plan(epochs=int(os.environ.get("EPOCHS", "4")), batch_size=64, optimizer=Adam(rate=2e-3))
    start = cnn()
    for recipe in (am.recipes.standard(), am.recipes.madry(attack=am.FGSM())):
        model = am.train(start, train, recipe, threat, validation=validation, plan=plan)
        audit = am.audit(model, test, threat, suite=QUICK)
        print(f"{recipe.name:10} clean {audit.clean_accuracy:6.1%}  robust {audit.robust_accuracy:6.1%}")
    am.save_model(model, "hardened.keras")
    again = keras.models.load_model("hardened.keras")  # plain Keras, which needs no adamant for it
    said = keras.ops.convert_to_numpy(again(test.x[:100].permute(0, 2, 3, 1).numpy())).argmax(1)
    print(f"hardened.keras, loaded by Keras, has {(said == test.y[:100].numpy()).mean():.0%} of the first 100 right")
