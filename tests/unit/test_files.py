"""Files appear whole or not at all; folders say why they cannot be written."""

import os
from pathlib import Path

import pytest

from adamant.errors import RunError
from adamant.files import make_folder, renamed, write_whole


def test_text_and_bytes_arrive_as_they_are(tmp_path: Path) -> None:
    write_whole(tmp_path / "deep" / "er" / "a.txt", "größer\n")
    write_whole(tmp_path / "b.bin", b"\x00\xff")
    assert (tmp_path / "deep" / "er" / "a.txt").read_bytes() == "größer\n".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\x00\xff"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.bin", "deep"]


@pytest.mark.parametrize("breaks", ["fsync", "replace"])
def test_what_was_there_stays_when_writing_breaks(tmp_path: Path, monkeypatch, breaks) -> None:
    path = tmp_path / "a.txt"
    write_whole(path, "old")

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(*((os, "fsync") if breaks == "fsync" else (Path, "replace")), fail)
    with pytest.raises(RunError, match=r"a\.txt cannot be written: No space left on device; choose another place"):
        write_whole(path, "new")
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_nobody_ever_sees_half_a_file(tmp_path: Path, monkeypatch) -> None:
    path, seen = tmp_path / "a.txt", []
    write_whole(path, "old")
    true = os.fsync
    monkeypatch.setattr(os, "fsync", lambda fd: (seen.append(path.read_text()), true(fd)))
    write_whole(path, "new")
    assert seen == ["old"]
    assert path.read_text() == "new"


def test_interrupted_writing_leaves_nothing_behind(tmp_path: Path, monkeypatch) -> None:
    def interrupt(fd: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "a.txt", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_made_and_may_be_there_already(tmp_path: Path) -> None:
    folder = tmp_path / "x" / "y"
    assert make_folder(folder) == folder
    assert make_folder(folder) == folder
    assert list(folder.iterdir()) == []


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"The folder .*file cannot be written: .*; choose another with --out"):
        make_folder(tmp_path / "file")
    with pytest.raises(RunError, match="cannot be written"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(RunError, match="cannot be written"):
        write_whole(tmp_path / "file" / "a.txt", "x")


def _folder(path: Path, *names: str, text: str) -> None:
    with renamed(path) as unfinished:
        unfinished.mkdir()
        for name in names:
            (unfinished / name).write_text(text)


def test_a_folder_takes_the_place_of_one_like_it_and_of_no_other(tmp_path: Path) -> None:
    path = tmp_path / "model"
    _folder(path, "graph", "weights", text="old")
    _folder(path, "graph", "weights", text="new")
    assert [(p.name, p.read_text()) for p in sorted(path.iterdir())] == [("graph", "new"), ("weights", "new")]
    (path / "thesis").write_text("mine")
    with pytest.raises(RunError, match=r"holds something else \(thesis\)"):
        _folder(path, "graph", "weights", text="newer")
    assert sorted(p.name for p in path.iterdir()) == ["graph", "thesis", "weights"]
    assert (path / "graph").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_folder_that_could_not_be_exchanged_stays(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "model"
    _folder(path, "graph", text="old")
    first, move = [True], Path.replace

    def once(self: Path, to: Path) -> Path:
        if to == path and first and first.pop():
            raise OSError(28, "No space left on device")
        return move(self, to)

    monkeypatch.setattr(Path, "replace", once)
    with pytest.raises(RunError, match="No space left"):
        _folder(path, "graph", text="new")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert (path / "graph").read_text() == "old"
