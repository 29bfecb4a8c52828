"""Write one handwritten digit, a two, to digit.png."""

from PIL import Image

import adamant as am

test = am.load_data("digits", split="test")
Image.fromarray((test.x[0, 0] * 255).byte().numpy()).save("digit.png")
print(f"digit.png shows a {int(test.y[0])}")
