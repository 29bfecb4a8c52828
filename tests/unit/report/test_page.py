"""The page: self-contained, escaped, complete, and the same bytes each time."""

import base64
import io
import re
import shutil
import subprocess
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise
from math import comb

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from adamant.errors import InputError, RunError
from adamant.report import write_page

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """The tags, attributes and text of a page; complains about tags that do not match."""

    def __init__(self, html):
        super().__init__()
        self.html, self.tags, self.open, self.words = html, [], [], []
        self.feed(html)
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self):
        return " ".join(" ".join(self.words).replace("\u00a0", " ").split())

    def all(self, tag):
        return [attrs for name, attrs in self.tags if name == tag]


def page(folders, out, **rest):
    html = write_page(folders, out, **rest).read_text(encoding="utf-8")
    return Page(html)


@pytest.fixture
def everything(folders, two, tmp_path):
    return [*two, folders.training_folder(tmp_path / "t")]


def test_page_asks_nothing_of_the_network(everything, tmp_path):
    html = page(everything, tmp_path / "r.html").html
    made = Page(html)
    assert "http" not in re.sub(r'http-equiv="', "", html)
    for tag, attrs in made.tags:
        for name in ("src", "href", "xlink:href", "srcset", "data", "action", "poster"):
            assert (attrs.get(name) or "#").startswith(("#", "data:image/png;base64,")), (tag, attrs)
    assert all(found.startswith("#") for found in re.findall(r"url\(([^)]*)\)", html))
    assert "@import" not in html
    assert not made.all("link")
    policy = next(attrs["content"] for attrs in made.all("meta") if attrs.get("http-equiv"))
    assert policy.startswith("default-src 'none'")


def test_page_is_one_file_of_modest_size(everything, tmp_path):
    out = tmp_path / "new" / "r.html"
    assert write_page(everything, out) == out
    assert [one.name for one in out.parent.iterdir()] == ["r.html"]
    assert out.stat().st_size < 600_000


def test_large_pictures_are_reduced(folders, tmp_path):
    folder = folders.audit_folder(tmp_path / "a", rows=12, held=0, wrong=0)
    rng = np.random.default_rng(0)
    x = rng.random((12, 3, 224, 224), dtype=np.float32)
    folders.save_file(
        {"row": np.arange(12), "original": x, "adversarial": np.clip(x + 0.03, 0, 1)},
        folder / "adversarial.safetensors",
    )
    result = folders.read_json(folder)
    result["data"]["shape"] = [3, 224, 224]
    folders.write_json(folder, result)
    made = page([folder], tmp_path / "r.html")
    assert len(made.html) < 1_500_000
    assert "reduced resolution" in made.text
    assert len(made.all("img")) >= 9


def test_links_and_labels_meet_their_ids(everything, tmp_path):
    made = page(everything, tmp_path / "r.html")
    ids = Counter(attrs["id"] for _, attrs in made.tags if "id" in attrs)
    assert [one for one, times in ids.items() if times > 1] == []
    for _, attrs in made.tags:
        wanted = [attrs.get("aria-labelledby"), attrs.get("data-copies")]
        wanted += [attrs["href"][1:]] if attrs.get("href") else []
        assert all(one in ids for one in wanted if one), attrs
    assert set(re.findall(r"url\(#([^)]*)\)", made.html)) <= ids.keys()


def test_page_can_be_read_by_all(everything, tmp_path):
    made = page(everything, tmp_path / "r.html")
    names = [tag for tag, _ in made.tags]
    assert made.all("html") == [{"lang": "en"}]
    assert names.count("h1") == names.count("main") == names.count("nav") == 1
    levels = [int(tag[1]) for tag in names if re.fullmatch(r"h[1-6]", tag)]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert names.count("caption") == names.count("table") >= 8
    assert all(attrs.get("scope") for attrs in made.all("th"))
    assert all(len(attrs["alt"]) > 20 for attrs in made.all("img"))
    assert all(attrs["role"] == "img" and len(attrs["aria-label"]) > 30 for attrs in made.all("svg"))
    assert made.all("a")[0] == {"class": "skip", "href": "#content"}


def contrast(one, other):
    def light(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((light(one), light(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_text_stands_out_from_its_ground(two, tmp_path, dark):
    html = page(two, tmp_path / "r.html").html
    light_theme, dark_theme = (
        dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", html, re.S)
    )
    colours = dark_theme if dark else light_theme
    assert set(light_theme) == set(dark_theme)
    texts = ["ink", "soft", "accent", "alarm", "care", "clean", "robust", *(f"series-{i}" for i in range(1, 7))]
    for text in texts:
        assert contrast(colours[text], colours["paper"]) >= 4.5, text
        assert text in ("alarm", "care") or contrast(colours[text], colours["sheet"]) >= 4.5, text
    for kind in ("alarm", "care"):
        assert contrast(colours[kind], colours[f"{kind}-back"]) >= 4.5
        assert contrast(colours["ink"], colours[f"{kind}-back"]) >= 4.5


def test_names_from_outside_are_text_and_nothing_else(folders, tmp_path):
    evil = '<script>alert("1")</script><img src=x onerror=alert(1)>"\' $\\frac$ \x07 url(#a) #010101'
    classes = [evil, "$\\frac$", "日本 \u0416", *"3456789"]
    made = page(
        [
            folders.audit_folder(
                tmp_path / "a", name=evil, classes=classes, notes=[evil], warnings=[evil], threat=evil
            ),
            folders.audit_folder(tmp_path / "b", name="{{ 7 * 7 }}", seed=3, classes=classes),
            folders.training_folder(tmp_path / "t", name=evil),
        ],
        tmp_path / "r.html",
        title=evil,
    )
    assert len(made.all("script")) == 1
    assert all(attrs["src"].startswith("data:") for attrs in made.all("img"))
    assert not any(name.startswith("on") for _, attrs in made.tags for name in attrs)
    assert '<script>alert("1")</script>' in made.text
    assert "$\\frac$" in made.text
    assert "{{ 7 * 7 }}" in made.text
    assert "$\\frac$ (" in made.text  # in the figure: a name is no formula
    assert "日本 \u0416 (" in made.text


def test_headline_of_one_model(folders, tmp_path):
    folder = folders.audit_folder(tmp_path / "a")
    result = folders.read_json(folder)
    made = page([folder], tmp_path / "r.html")
    failing = result["clean"]["rows"] - result["robust"]["correct"]
    told = int(failing / result["clean"]["rows"] * 1000 + 1e-9) / 10
    assert f"Under Linf(0.1) , at least {told:.1f} % of inputs can be made to fail." in made.text
    for one in (result["clean"], result["robust"]):
        assert f"{one['accuracy'] * 100:.1f} %" in made.text
        assert f"95 % interval {one['low'] * 100:.1f} to {one['high'] * 100:.1f} %" in made.text
        assert f"{one['correct']} of {one['rows']} inputs" in made.text
    assert "each of the 64 pixels up or down, all at once, by at most 10 % of the full range" in made.text
    assert "upper bound" in made.text
    wrong = result["statuses"]["wrong_already"]
    assert f"Of the {failing} inputs that fail, {wrong} fail without any attack." in made.text
    assert "costs with the curve" not in made.text
    assert result["provenance"]["command"] in made.text
    for stage in result["stages"]:
        assert stage["attack"] in made.text
        assert f"{stage['forwards']:,}" in made.text
    assert "Side by side" not in made.text
    assert "How it was trained" not in made.text
    assert "Serious" not in made.text


def test_a_model_that_nobody_broke(folders, tmp_path):
    folder = folders.audit_folder(tmp_path / "a", held=1.0)
    (folder / "adversarial.safetensors").unlink()  # nothing to keep
    made = page([folder], tmp_path / "r.html")
    assert "no attack of the suite broke any of the" in made.text
    assert "No attack broke an input" in made.text


def test_an_audit_with_little_to_tell(folders, tmp_path):
    folder = folders.audit_folder(tmp_path / "a")
    result = folders.read_json(folder)
    for key in ("curve", "per_class", "warnings"):
        del result[key]
    for key in ("classes", "shape", "notes", "split"):
        del result["data"][key]
    result["threat"] = {"repr": "Patch(5, 5)", "norm": None, "eps": None}
    result["model"] = {"spec": "mine:net"}
    result["stages"] = result["stages"][:1]  # so that the whole costs more than its stages
    result["provenance"]["threads"] = None
    folders.write_json(folder, result)
    text = page([folder], tmp_path / "r.html").text
    assert "holds no figures per class" in text
    assert "costs with the curve" in text
    assert "Accuracy over the budget" not in text
    assert "the threat model Patch(5, 5) allows" in text
    assert "Truth class 0" in text


def test_many_classes_show_the_weakest(folders, tmp_path):
    folder = folders.audit_folder(tmp_path / "a")
    result = folders.read_json(folder)
    one = result["per_class"][0]
    result["per_class"] = [
        one | {"label": i, "name": f"kind {i}", "robust": i / 100, "robust_high": 1} for i in range(60)
    ]
    folders.write_json(folder, result)
    made = page([folder], tmp_path / "r.html")
    assert "the 20 weakest of 60 classes" in made.text
    assert "kind 19 (" in made.html
    assert "kind 20 (" not in made.html
    assert '<th scope="row">kind 59</th>' in made.html


def test_same_folders_same_bytes(everything, tmp_path):
    one, other = (write_page(everything, tmp_path / name).read_bytes() for name in ("1.html", "2.html"))
    assert one == other
    command = "import sys; from pathlib import Path; from adamant.report import write_page; "
    command += "write_page([Path(p) for p in sys.argv[2:]], Path(sys.argv[1]))"
    subprocess.run(
        [sys.executable, "-c", command, str(tmp_path / "3.html"), *map(str, everything)],
        check=True,
        env={"PYTHONHASHSEED": "7", "PATH": "", "HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path / "mpl")},
    )
    assert (tmp_path / "3.html").read_bytes() == one


def test_drawing_leaves_matplotlib_as_it_was(two, tmp_path):
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    write_page(two, tmp_path / "r.html")
    assert dict(mpl.rcParams) == before


def test_invalid_rows_are_a_red_warning(folders, tmp_path):
    folder = folders.audit_folder(tmp_path / "a", invalid=2, held=0.3)
    rows = pq.read_table(folder / "rows.parquet").to_pydict()
    first, second = (row for row, status in zip(rows["row"], rows["status"], strict=True) if status == "invalid")
    made = page([folder], tmp_path / "r.html")
    assert f"2 inputs are invalid (rows {first}, {second})" in made.text
    assert {"class": "notice alarm", "role": "note"} in made.all("div")
    assert "Read the warnings first" in made.text
    assert "--alarm: #a8071a" in made.html


def test_warnings_and_notes_are_told(folders, tmp_path):
    folder = folders.audit_folder(
        tmp_path / "a", notes=["model returns probabilities"], warnings=["the curve rises"], out_of_budget=3, held=0.3
    )
    text = page([folder], tmp_path / "r.html").text
    assert "Note. model returns probabilities" in text
    assert "Warning. the curve rises" in text
    assert "3 of the inputs counted as held are undecided" in text


def test_rows_that_contradict_the_result_are_a_red_warning(folders, tmp_path):
    folder = folders.audit_folder(tmp_path / "a")
    result = folders.read_json(folder)
    result["statuses"]["robust"] += 1
    folders.write_json(folder, result)
    assert "rows.parquet does not agree with result.json" in page([folder], tmp_path / "r.html").text
    result["statuses"]["robust"] -= 1
    result["robust"]["correct"] -= 1
    folders.write_json(folder, result)
    assert "The robust accuracy of result.json counts" in page([folder], tmp_path / "r.html").text


def test_two_models_side_by_side(two, folders, tmp_path):
    made = page(two, tmp_path / "r.html")
    ordinary, hardened = (folders.read_json(folder)["robust"]["accuracy"] for folder in two)
    assert f"at most {ordinary * 100:.1f} % for ordinary and at most {hardened * 100:.1f} % for hardened" in made.text
    assert "Side by side" in made.text


def test_mcnemar_equals_a_hand_calculation(two, tmp_path):
    held = []
    for folder in two:
        status = pq.read_table(folder / "rows.parquet").column("status").to_pylist()
        held.append([one == "robust" for one in status])
    b = sum(x and not y for x, y in zip(*held, strict=True))
    c = sum(y and not x for x, y in zip(*held, strict=True))
    p = min(1, 2 * sum(comb(b + c, k) for k in range(min(b, c) + 1)) / 2 ** (b + c))
    told = "p < 0.000001" if p < 1e-6 else f"p = {p:.2g}"
    text = page(two, tmp_path / "r.html").text
    assert f"hardened holds {c} inputs that ordinary loses, and loses {b} that the other holds." in text
    assert f"exact test: {told}." in text
    assert f"{(c - b) / 120 * 100:+.1f} points" in text


def test_no_pairs_where_the_question_differs(folders, tmp_path):
    pair = [folders.audit_folder(tmp_path / "a"), folders.audit_folder(tmp_path / "b", eps=0.2)]
    text = page(pair, tmp_path / "r.html").text
    assert "McNemar" not in text
    assert "the figures do not rank the models" in text


def test_four_models_with_one_name(folders, tmp_path):
    many = [folders.audit_folder(tmp_path / str(i), seed=i, name="m") for i in range(4)]
    text = page(many, tmp_path / "r.html").text
    assert "Robustness audit of 4 models" in text
    assert "m (4)" in text
    assert "McNemar" not in text


@pytest.mark.parametrize("measured", [120, None])
def test_how_it_was_trained(folders, tmp_path, measured):
    lesson = folders.training_folder(tmp_path / "t", measured=measured)
    text = page([folders.audit_folder(tmp_path / "a"), lesson], tmp_path / "r.html").text
    best = folders.read_json(lesson)["best_epoch"]
    assert "How it was trained" in text
    assert "trades(beta=6)" in text
    assert f"At the best epoch, {best}," in text
    assert ("there is no interval" in text) == (measured is None)


def test_training_alone_even_without_a_finished_epoch(folders, tmp_path):
    text = page([folders.training_folder(tmp_path / "t", epochs=0)], tmp_path / "r.html").text
    assert "Training report: small CNN, hardened" in text
    assert "Broken inputs" not in text


@pytest.mark.parametrize("kind", ["vector", "signal"])
def test_inputs_that_are_no_pictures_are_drawn(folders, tmp_path, kind):
    made = page([folders.audit_folder(tmp_path / "a", kind=kind)], tmp_path / "r.html")
    assert not made.all("img")
    assert "Grey is the original, orange the attacked input" in made.text
    assert ("Largest changes" in made.text) == (kind == "vector")
    assert sum("before and after the attack" in attrs["aria-label"] for attrs in made.all("svg")) == 6


@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_gallery_shows_what_the_folder_holds(folders, tmp_path, kind):
    folder = folders.audit_folder(tmp_path / "a", kind=kind)
    made = page([folder], tmp_path / "r.html")
    shown = [
        np.asarray(Image.open(io.BytesIO(base64.b64decode(attrs["src"].split(",")[1])))).astype(int)
        for attrs in made.all("img")
    ]
    assert len(shown) == 24
    assert "The change is shown 5 times as strong" in made.text
    x, _ = folders.pictures(120, kind)
    row = int(re.search(r"row (\d+)", made.all("img")[0]["alt"])[1])
    expected = np.rint(np.moveaxis(x[row], 0, -1) * 255)
    assert (shown[0] == (expected[..., 0] if kind == "grey" else expected)).all()
    assert 0 < np.abs(shown[1] - shown[0]).max() <= 0.1 * 255 + 1
    classes = [attrs["alt"].split("class ")[1][0] for attrs in made.all("img")[::3]]
    assert len(set(classes)) == 8


def test_gallery_turns_through_the_classes(folders, tmp_path):
    folder = folders.audit_folder(tmp_path / "a", rows=300)
    folders.pq.write_table(folders.pq.read_table(folder / "rows.parquet").sort_by("label"), folder / "rows.parquet")
    made = page([folder], tmp_path / "r.html")
    assert [attrs["alt"].split("class ")[1][0] for attrs in made.all("img")[::3]] == list("01234567")


def test_no_folder_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="at least one run folder"):
        write_page([], tmp_path / "r.html")


def test_a_page_that_cannot_be_written_leaves_nothing(two, tmp_path):
    (tmp_path / "r.html").mkdir()
    with pytest.raises(RunError, match="cannot be written"):
        write_page(two, tmp_path / "r.html")
    assert sorted(one.name for one in tmp_path.iterdir()) == ["a", "b", "r.html"]


BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


@pytest.mark.skipif(BROWSER is None, reason="no chromium on PATH")
def test_a_browser_shows_it(everything, tmp_path):
    out = write_page(everything, tmp_path / "r.html")

    def browse(*arguments):
        return subprocess.run(
            [
                BROWSER,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--user-data-dir={tmp_path / 'profile'}",
                "--window-size=1280,2400",
                *arguments,
                out.as_uri(),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        ).stdout.decode()

    dom = browse("--dump-dom")
    for heading in ("Result", "What this means", "Warnings", "Side by side", "Broken inputs", "How it was trained"):
        assert re.search(rf"<h2[^>]*>{heading}</h2>", dom), heading
    assert '<button type="button" data-copies' in dom  # the policy lets our own script through: it shows the button
    browse(f"--screenshot={tmp_path / 'shot.png'}")
    shot = np.asarray(Image.open(tmp_path / "shot.png").convert("L"))
    assert shot.shape == (2400, 1280)
    assert shot.std() > 10
    assert all(band.std() > 3 for band in np.array_split(shot, 6))
