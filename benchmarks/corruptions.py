"""Contact sheets of all corruptions, and their speed.

python benchmarks/corruptions.py            writes docs/corruptions/*.png
python benchmarks/corruptions.py --speed    prints pictures per second for each kind

The pictures are scikit-learn's samples, under CC BY 2.0: china.jpg by danielbuechele, flower.jpg by vultilion (flickr).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw
from sklearn.datasets import load_sample_image

from adamant.corruptions import KINDS
from adamant.random import Rng


def picture(name: str, side: int) -> torch.Tensor:
    image = Image.fromarray(load_sample_image(name))
    left = (image.width - image.height) // 2
    image = image.crop((left, 0, left + image.height, image.height)).resize((side, side), Image.Resampling.BOX)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255


def sheet(x: torch.Tensor, shown: int) -> Image.Image:
    """One line per kind, one column per severity, each picture `shown` pixels wide."""
    cell, margin = shown + 2, 92
    page = Image.new("RGB", (margin + 6 * cell, len(KINDS) * cell), "white")
    draw = ImageDraw.Draw(page)
    for line, (name, kind) in enumerate(KINDS.items()):
        draw.text((2, line * cell + shown // 2 - 5), name, fill="black")
        for column in range(6):
            y = kind(severity=column)(x, Rng.of(0, len(x))) if column else x
            small = Image.fromarray((y[0].permute(1, 2, 0) * 255).round().byte().numpy())
            method = Image.Resampling.NEAREST if small.width < shown else Image.Resampling.BOX
            page.paste(small.resize((shown, shown), method), (margin + column * cell, line * cell))
    return page


def speed() -> None:
    print(f"pictures per second, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"{'':14}{'32 px':>10}{'224 px':>10}")
    for name, kind in KINDS.items():
        rates = []
        for side, rows in ((32, 128), (224, 4)):
            x = picture("china.jpg", side).repeat(rows, 1, 1, 1)
            kind(severity=3)(x[:2], Rng.of(0, 2))
            began = time.perf_counter()
            kind(severity=3)(x, Rng.of(0, rows))
            rates.append(rows / (time.perf_counter() - began))
        print(f"{name:14}{rates[0]:10.0f}{rates[1]:10.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("docs/corruptions"))
    asked = parser.parse_args()
    if asked.speed:
        speed()
        return
    asked.out.mkdir(parents=True, exist_ok=True)
    for name, side, shown in (("flower.jpg", 32, 64), ("china.jpg", 224, 84)):
        page = sheet(picture(name, side), shown)
        page.quantize(96, dither=Image.Dither.NONE).save(asked.out / f"sheet-{side}.png", optimize=True)


if __name__ == "__main__":
    main()
