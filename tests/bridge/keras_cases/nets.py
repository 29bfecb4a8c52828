"""Small Keras networks for the digits, and the same in torch."""

import torch
from torch import nn
from torch.nn import functional as F

import adamant as am
from adamant.models.foreign.keras import keras

k = keras()
L = k.layers
BACKEND = k.config.backend()
SHAPE = (8, 8, 1)
DIGITS = am.load_data("digits", split="test")


def cnn(head="softmax", scale=1.0, seed=0):
    """Convolution, pooling, flatten, dense: smooth, so that two frameworks stay near each other; no luck in it."""
    k.utils.set_random_seed(seed)
    model = k.Sequential(
        [
            k.Input(SHAPE),
            L.Conv2D(6, 3, activation="elu", name="first"),
            L.AveragePooling2D(2),
            L.Flatten(),
            L.Dense(10, activation=head, name="last"),
        ]
    )
    model.get_layer("last").set_weights([w * scale for w in model.get_layer("last").get_weights()])
    return model


def lively(seed=0):
    """With batch statistics and dropout."""
    k.utils.set_random_seed(seed)
    return k.Sequential(
        [
            k.Input(SHAPE),
            L.Conv2D(6, 3, name="first"),
            L.BatchNormalization(name="norm", momentum=0.8),
            L.ReLU(),
            L.Dropout(0.3, seed=5),  # without one, Keras on torch draws from the generator of torch
            L.Flatten(),
            L.Dense(10, activation="softmax", name="last"),
        ]
    )


class Twin(nn.Module):
    """`cnn` in torch, with the same names and layouts of its weights, from (n 1 8 8) to logits."""

    def __init__(self, of):
        super().__init__()
        for name, value in of.named_parameters():
            self.register_parameter(name, nn.Parameter(value.detach().clone()))

    def forward(self, x):
        z = F.elu(F.conv2d(x, self.first_kernel.permute(3, 2, 0, 1), self.first_bias))
        z = F.avg_pool2d(z, 2).permute(0, 2, 3, 1).flatten(1)
        return z @ self.last_kernel + self.last_bias


def answers(model, x):
    """What Keras itself says of x (n 1 8 8)."""
    return torch.from_numpy(k.ops.convert_to_numpy(model(x.permute(0, 2, 3, 1).numpy(), training=False)).copy())


def fitted(model, steps=60):
    """The model as a torch module, both a little trained."""
    held = am.load_model(model)
    optimizer = torch.optim.Adam(held.parameters(), 0.02)
    train = am.load_data("digits", split="train")
    for step in range(steps):
        rows = slice(step * 64 % 1024, step * 64 % 1024 + 64)
        optimizer.zero_grad()
        F.cross_entropy(held(train.x[rows]), train.y[rows]).backward()
        optimizer.step()
    held.receive()
    return held
