"""Write the Keras-2 files of this folder and what their models answer: once, with tf_keras, which no test needs.

python tests/bridge/files/make_legacy.py
"""

import json
from pathlib import Path

import numpy as np
import tensorflow as tf
import tf_keras
from tf_keras import layers

HERE = Path(__file__).parent
SHAPE = (8, 8, 1)


def cnn():
    """The network of the tutorials, compiled as they compile it."""
    model = tf_keras.Sequential(
        [
            layers.Conv2D(4, 3, activation="relu", input_shape=SHAPE),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.2),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def mobile():
    """What MobileNets are made of: depthwise convolutions, statistics, a sum, a model within a model."""
    z = given = tf_keras.Input(SHAPE)
    z = layers.ZeroPadding2D(1)(z)
    z = layers.Conv2D(4, 3, use_bias=False)(z)
    z = layers.BatchNormalization()(z)
    z = layers.ReLU(6.0)(z)
    w = layers.DepthwiseConv2D(3, padding="same", depth_multiplier=1)(z)
    z = layers.add([w, z])
    head = tf_keras.Sequential([layers.SeparableConv2D(6, 3), layers.GlobalAveragePooling2D()], name="head")
    z = layers.Dense(10)(head(z))
    return tf_keras.Model(given, layers.Softmax()(z))


def lambdas():
    return tf_keras.Sequential([layers.Flatten(input_shape=SHAPE), layers.Lambda(lambda x: 2 * x), layers.Dense(10)])


class Twice(layers.Layer):
    def call(self, x):
        return 2 * x


def custom():
    return tf_keras.Sequential([layers.Flatten(input_shape=SHAPE), Twice(), layers.Dense(10)])


def main():
    tf.random.set_seed(0)
    x = np.linspace(0, 1, 5 * 64, dtype=np.float32).reshape(5, *SHAPE) ** 2
    answers = {}
    for make, names in ((cnn, ("cnn.h5", "cnn.keras")), (mobile, ("mobile.h5", "mobile.keras"))):
        model = make()
        for layer in model.layers:  # statistics that are not those of the beginning
            if isinstance(layer, layers.BatchNormalization):
                layer.set_weights([np.linspace(0.5, 1.5, w.size, dtype=np.float32) for w in layer.get_weights()])
        for name in names:
            model.save(HERE / name)
            answers[name] = model.predict(x, verbose=0).tolist()
    lambdas().save(HERE / "lambda.h5")
    lambdas().save(HERE / "lambda.keras")
    custom().save(HERE / "custom.h5")
    (HERE / "answers.json").write_text(json.dumps({"x": x.tolist(), "answers": answers}))


if __name__ == "__main__":
    main()
