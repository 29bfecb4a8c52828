"""A classifier in a .h5 file and one picture: attack it by a plain gradient step and by PGD, compare the answers."""

import sys
from pathlib import Path

import torch
from PIL import Image

import adamant as am

model_file, picture, label = (*sys.argv[1:], "classifier.h5", "digit.png", "2")[:3]
if not Path(model_file).exists():  # none given: one is made, and a picture for it
    import torch.nn.functional as F
    from keras_fgsm import cnn, rows

    held, train = am.load_model(cnn()), rows("train")
    optimizer = torch.optim.Adam(held.parameters(), 2e-3)
    for step in range(100):
        batch = torch.arange(64 * step, 64 * step + 64) % len(train)
        optimizer.zero_grad()
        F.cross_entropy(held(train.x[batch]), train.y[batch]).backward()
        optimizer.step()
    held.receive().save(model_file)
    Image.fromarray((am.load_data("digits", split="test").x[0, 0] * 255).byte().numpy()).save(picture)

model = am.load_model(model_file)  # of Keras 3 or 2
size = model.host.shape[:2]
data = am.load_data(picture, label=int(label), size=size)  # resized to what the model takes


def said(x: torch.Tensor) -> str:
    with torch.no_grad():
        p, label = model(x).softmax(1).max(1)
    return f"{int(label)} ({float(p):.0%})"


print(f"{picture}, {size[0]} x {size[1]}: {said(data.x)}")
for attack in (am.FGM(), am.PGD(steps=40)):
    out = am.attack(attack, model, data.x, data.y, am.Linf(0.2), settings=am.Settings(lanes=1))
    name = f"{type(attack).__name__.lower()}.png"
    pixels = (out.x_adv[0] * 255).round().byte().permute(1, 2, 0).squeeze(2).numpy()
    Image.fromarray(pixels).save(name)
    saved = am.load_data(name, label=int(label))
    print(f"{name}: {said(saved.x)} as saved, largest change {float((saved.x - data.x).abs().max()):.3f}")
