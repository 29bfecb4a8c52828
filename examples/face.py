import adamant as am
from adamant.models import build

train, test = am.load_data("digits", split="train"), am.load_data("digits", split="test")
net = build("zoo:small-cnn", shape=(1, 8, 8), classes=10)
tough = am.train(net, train, am.recipes.madry(), am.Linf(0.1))
out = am.attack(am.PGD(steps=40), tough, test.x, test.y, am.Linf(0.1))
print(f"{out.robust_accuracy:.1%} of the digits stand")
