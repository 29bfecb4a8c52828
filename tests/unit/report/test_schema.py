"""The JSON Schema: it lets the samples through, refuses what is wrong, and the documentation tells all of it."""

import copy
import json
import re
from pathlib import Path

import pytest

from adamant.report import schema

DOC = Path(__file__).parents[3] / "docs" / "result-schema.md"
KINDS = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
}


def check(value, rule, root, at="result"):
    """The words of JSON Schema that ours uses, and no others: an unknown one fails."""
    if "$ref" in rule:
        check(value, root["$defs"][rule["$ref"].removeprefix("#/$defs/")], root, at)
        rule = {key: one for key, one in rule.items() if key != "$ref"}
    known = {"type", "properties", "required", "items", "minimum", "maximum", "const", "description"}
    assert set(rule) <= known, set(rule) - known
    if "const" in rule:
        assert value == rule["const"], at
    if "type" in rule:
        kinds = [rule["type"]] if isinstance(rule["type"], str) else rule["type"]
        fits = [isinstance(value, KINDS[kind]) and (isinstance(value, bool) <= (kind == "boolean")) for kind in kinds]
        assert any(fits), f"{at} is {value!r}, not {kinds}"
    if isinstance(value, dict) and "properties" in rule:
        assert set(rule.get("required", ())) <= set(value), at
        for key, one in value.items():
            assert key in rule["properties"], f"{at}.{key} is not in the schema"
            check(one, rule["properties"][key], root, f"{at}.{key}")
    if isinstance(value, list) and "items" in rule:
        for i, one in enumerate(value):
            check(one, rule["items"], root, f"{at}[{i}]")
    if isinstance(value, int | float):
        assert rule.get("minimum", value) <= value <= rule.get("maximum", value), at


def accepts(value):
    root = schema()
    fits = 0
    for rule in root["oneOf"]:
        try:
            check(value, rule, root)
            fits += 1
        except AssertionError as error:
            last = error
    if not fits:
        raise last
    return fits == 1


@pytest.fixture
def samples(folders, tmp_path):
    return [
        folders.read_json(folders.audit_folder(tmp_path / "a")),
        folders.read_json(folders.training_folder(tmp_path / "t")),
    ]


def test_samples_fit_exactly_one_kind(samples):
    assert all(accepts(sample) for sample in samples)


def test_it_is_json_of_the_stated_draft():
    root = json.loads(json.dumps(schema()))
    assert root == schema()
    assert root["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    references = set(re.findall(r'"#/\$defs/(\w+)"', json.dumps(root)))
    assert references == set(root["$defs"])


@pytest.mark.parametrize(
    "spoil",
    [
        lambda one: one.pop("threat"),
        lambda one: one["clean"].update(accuracy=1.5),
        lambda one: one["clean"].update(rows=None),
        lambda one: one["clean"].pop("low"),
        lambda one: one["stages"][0].update(broke="3"),
        lambda one: one.update(schema="adamant.audit/2"),
    ],
)
def test_it_refuses_what_the_reader_refuses(samples, spoil):
    wrong = copy.deepcopy(samples[0])
    spoil(wrong)
    with pytest.raises(AssertionError):
        accepts(wrong)


def test_documentation_tells_every_field():
    text = DOC.read_text()
    for name, record in schema()["$defs"].items():
        part = text.split(f"\n### {name}\n")[1].split("\n### ")[0].split("\n## ")[0]
        lines = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", part, re.M))
        assert set(lines) == set(record["properties"]), name
        for field, rule in record["properties"].items():
            assert lines[field].endswith(f" | {rule['description']}"), f"{name}.{field}"
            assert ("optional" in lines[field].split(" | ")[0]) == (field not in record["required"]), f"{name}.{field}"
