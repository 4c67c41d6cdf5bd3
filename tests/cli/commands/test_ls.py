"""``optimize ls``: which files of a directory go together, and why the others do not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.cells import cell_len
from safetensors.torch import load_file, save_file

from studies.demo.world import demo_sources
from tests.cli.commands.test_inspect import HOSTILE, K, lora, refusal, told

ROW_KEYS = ["name", "file", "family", "dialect", "kinds", "bytes", "modules", "ranks", "trigger", "reason"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two files that go together, one of another family, one that shares nothing, a broken one, and what is no LoRA file."""
    place = tmp_path / "loras"
    (place / "inside").mkdir(parents=True)
    (place / "directory.safetensors").mkdir()
    lora(place / "inside", "deep")
    lora(place, "b", shapes={K: (64, 768)}, metadata={"modelspec.trigger_phrase": "hero"})
    lora(place, "c", shapes={K: (64, 768), "unet.conv_in": (64, 4, 3, 3)}, rank=lambda index: 4 + index, seed=1)
    lora(place, "d", shapes={K: (64, 2048)})
    lora(place, "e", shapes={"unet.conv_out": (4, 16, 3, 3)})
    (place / "a.safetensors").write_bytes(b"no")
    (place / "notes.txt").write_text("no LoRA")
    return place


def listed(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    out, err = told(["ls", *arguments, "--json"], capsys)
    assert out.count("\n") == 1
    assert err.count("\n") <= 1
    return dict(json.loads(out))


def test_what_fits_the_first_file_that_can_be_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = told(["ls", folder], capsys)
    rows = [text.split() for text in out.splitlines()]
    assert rows[0] == ["file", "family", "kind", "modules", "rank", "size", "trigger"]
    sizes = [f"{(folder / f'{name}.safetensors').stat().st_size / 1000:.1f}" for name in "bc"]
    assert rows[2:] == [
        ["b.safetensors", "sd1", "LoRA", "kohya", "1", "4", sizes[0], "kB", "hero"],
        ["c.safetensors", "sd1", "LoRA", "kohya", "2", "4–5", sizes[1], "kB", "–"],
    ]
    assert err == "3 left out: 1 cannot be read, 1 for sdxl, 1 with no shared module\n"


def test_the_current_directory_by_default(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    by_name = listed([folder], capsys)
    monkeypatch.chdir(folder)
    here = listed([], capsys)
    assert [file["name"] for file in here["files"]] == [file["name"] for file in by_name["files"]] == ["b", "c"]
    assert [file["file"] for file in here["files"]] == ["b.safetensors", "c.safetensors"]


def test_like_a_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = told(["ls", folder, "--like", folder / "d.safetensors"], capsys)
    assert [text.split()[:2] for text in out.splitlines()[2:]] == [["d.safetensors", "sdxl"]]
    assert err == "4 left out: 2 for sd1, 1 cannot be read, 1 with no shared module\n"
    out, err = told(["ls", folder, "--like", "demo:neon"], capsys)
    assert out == ""
    assert err.startswith("5 left out: ")
    assert refusal(["ls", folder, "--like", folder / "a.safetensors"], capsys) == (
        f"{folder}/a.safetensors: not a safetensors file — download or export the file again as safetensors"
    )
    assert refusal(["ls", folder, "--like", "nowhere.safetensors"], capsys) == "nowhere.safetensors: does not exist — check the path"


def test_all_of_them_with_the_reason(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    out, err = told(["ls", folder, "--all"], capsys)
    assert err == ""
    head, _, *rows = out.splitlines()
    reasons = [row[head.index("left out") :].strip() for row in rows]
    assert reasons[1:] == ["", "", "for sdxl", "with no shared module"]
    assert reasons[0] == "not a safetensors file — download or export the file again as s…"
    assert rows[0].split()[:7] == ["a.safetensors", *["–"] * 6]


def test_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = listed([folder], capsys)
    assert list(found) == ["directory", "reference", "files", "left_out"]
    assert (found["directory"], found["reference"]) == (str(folder), "b")
    assert [list(file) for file in found["files"]] == [ROW_KEYS, ROW_KEYS]
    second = found["files"][1]
    assert (second["modules"], second["ranks"], second["trigger"], second["reason"]) == (2, [4, 5], "", None)
    assert [(Path(item["file"]).stem, item["reason"]) for item in found["left_out"]] == [
        *(("a", "cannot be read"), ("d", "for sdxl"), ("e", "with no shared module"))
    ]
    everything = listed([folder, "--all"], capsys)
    assert [(file["name"], file["reason"]) for file in everything["files"]] == [
        *(("b", None), ("c", None), ("d", "for sdxl"), ("e", "with no shared module"))
    ]
    assert [item["reason"] for item in everything["left_out"]] == ["cannot be read"]


def test_nothing_that_can_be_read_is_no_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"no")
    assert told(["ls", tmp_path], capsys) == ("", "1 left out: 1 cannot be read\n")
    assert listed([tmp_path], capsys)["reference"] is None


def test_refusals(tmp_path: Path, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty, file = tmp_path / "empty", folder / "b.safetensors"
    empty.mkdir()
    assert refusal(["ls", empty], capsys) == f"{empty}: holds no .safetensors file — name the directory that your LoRAs lie in"
    assert refusal(["ls", tmp_path / "no"], capsys) == f"{tmp_path}/no: there is no such directory — check the path"
    assert refusal(["ls", file], capsys) == f"{file}: is a file, not a directory — look at one file with optimize inspect FILE"
    assert refusal(["ls", folder, "--like", "demo:nobody"], capsys).startswith("demo:nobody: there is no demo source 'nobody' — ")


@pytest.mark.parametrize("width", [80, 120])
def test_one_line_a_file_whatever_its_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    for index, name in enumerate(["[bold]x[bold]", "long" * 40, "\x1b[31mred\nline", "汉" * 60]):
        lora(tmp_path, name, seed=index, metadata={"modelspec.trigger_phrase": HOSTILE * 9})
    (tmp_path / f"{'z' * 90}.safetensors").write_bytes(b"no")
    out, _ = told(["ls", tmp_path, "--all"], capsys)
    lines = out.splitlines()
    assert len(lines) == 2 + 5
    assert max(map(cell_len, lines)) <= width
    assert not set(out) & {"\x1b", "\u202e"}
    assert r"\x1b[31mred" in out
    assert "[bold]x" in out
    short = [text for text in lines if " kB " in text and " 15 " in text and " unknown " in text]  # what is short is never cut
    assert len(short) == 4


def test_unknown_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lora(tmp_path, "a").path
    save_file(load_file(path) | {"mystery": torch.ones(1)}, path)
    assert listed([tmp_path], capsys)["left_out"][0]["reason"] == "cannot be read"
    assert [file["name"] for file in listed([tmp_path, "--allow-unknown"], capsys)["files"]] == ["a"]


def test_in_a_process_of_its_own() -> None:
    folder = demo_sources()["neon"].path.parent
    found = subprocess.run([sys.executable, "-m", "optimizer", "ls", str(folder)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    assert len(found.stdout.splitlines()) == 2 + len(demo_sources())
