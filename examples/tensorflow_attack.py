"""Harden and attack a tf.Module, and save it: TensorFlow computes, and nothing is written into its variables."""

import tensorflow as tf

import adamant as am
from adamant.training import Plan


class Net(tf.Module):
    """A softmax at the end, as people write it; the logits are found in the graph."""

    def __init__(self) -> None:
        super().__init__()
        start = tf.random.Generator.from_seed(0)
        self.first = tf.Variable(start.normal([64, 64], stddev=0.1), name="first")
        self.bias = tf.Variable(tf.zeros([64]), name="bias")
        self.out = tf.Variable(start.normal([64, 10], stddev=0.1), name="out")

    @tf.function
    def __call__(self, x: tf.Tensor) -> tf.Tensor:
        h = tf.nn.relu(tf.reshape(x, [-1, 64]) @ self.first + self.bias)
        return tf.nn.softmax(h @ self.out)


train, test = am.load_data("digits", split="train"), am.load_data("digits", split="test", limit=200)
model = am.load_model(Net(), shape=(8, 8, 1))  # a torch module: (rows, 1, 8, 8) to logits
plan = Plan(epochs=8, batch_size=64, select_rows=64)

plain = am.train(model, train, am.recipes.standard(), am.Linf(0.1), plan=plan)
tough = am.train(model, train, am.recipes.madry(attack=am.PGD(steps=5)), am.Linf(0.1), plan=plan)
for name, net in (("standard", plain), ("madry", tough)):
    found = am.attack(am.PGD(steps=20), net, test.x, test.y, am.Linf(0.1))
    print(f"{name:9s} {found.robust_accuracy:.1%} of the digits stand")

am.save_model(tough, "tough")  # the folder of a SavedModel, for tf.saved_model.load, TensorFlow Serving and others
again = am.attack(am.PGD(steps=20), am.load_model("tough"), test.x, test.y, am.Linf(0.1))
print(f"saved and loaded: {again.robust_accuracy:.1%}")
