"""``optimize inspect``: what it prints for people and for machines, what it refuses, and that no file can steer the terminal."""

from __future__ import annotations

import io
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console
from safetensors.torch import load_file, save_file

from optimizer.cli.main import execute
from optimizer.cli.tables.inspection import mark, print_inspection
from optimizer.errors import UsageError
from optimizer.inspection.facts import examine
from optimizer.inspection.file_metadata import LONGEST, MOST_WORDS, line, particulars
from optimizer.inspection.gather import Reading, gather
from studies.demo.world import demo_sources
from tests.files import SHAPES, Made, diffusers_file, edited, kohya_file, kohya_name, random_parts
from tests.tiny import tiny_pipeline

K = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"
HOSTILE = "[red]evil[/red] \x1b[31m\nnext\u202e line"
FILE_KEYS = [
    *("name", "file", "family", "dialect", "kinds", "bytes", "family_reason", "sha256", "parts", "ranks", "alphas", "scales"),
    *("idle_modules", "sufficient_rank", "total", "blocks", "distillation", "metadata", "unknown_tensors", "unknown"),
]
BLOCK_KEYS = ["name", "modules", "norm", "energy_share", "weights", "rank", "effective_rank", "rank_for_90", "rank_for_99"]
PAIR_KEYS = [
    *("names", "families", "shared", "only", "shape_conflicts", "shared_energy", "strength_ratio", "equal_weights", "total", "blocks")
]
LIKENESS_KEYS = [
    *("modules", "norms", "cosine", "sign_conflict"),
    *("column_overlap", "column_overlap_by_chance", "row_overlap", "row_overlap_by_chance"),
]


def lora(folder: Path, name: str, seed: int = 0, metadata: dict[str, str] | None = None, **options: Any) -> Made:
    return kohya_file(folder / f"{name}.safetensors", random_parts(seed=seed, **options), metadata=metadata)


def told(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    """stdout and stderr of a command that succeeds."""
    code = execute([str(word) for word in arguments])
    out, err = capsys.readouterr()
    assert code == 0, err
    return out, err


def refusal(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr of a command that is refused, without ``optimize: ``."""
    assert execute([str(word) for word in arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    return err.removeprefix("optimize: ").rstrip("\n")


def facts(arguments: list[object], capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    out, _ = told([*arguments, "--json"], capsys)
    assert out.count("\n") == 1
    return dict(json.loads(out))


def test_json_of_one_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = lora(tmp_path, "hero", metadata={"modelspec.trigger_phrase": "hero person", "modelspec.tags": "character, game"})
    found = facts(["inspect", made.path], capsys)
    assert list(found) == ["files", "pairs", "diagnosis", "left_out"]
    assert (found["pairs"], found["left_out"]) == ([], [])
    (file,) = found["files"]
    assert list(file) == FILE_KEYS
    assert [list(block) for block in (file["total"], *file["blocks"])] == [BLOCK_KEYS] * (1 + len(file["blocks"]))
    assert list(file["total"]["weights"]) == ["mean", "std", "min", "max"]
    assert (file["name"], file["file"], file["bytes"]) == ("hero", str(made.path), made.path.stat().st_size)
    assert len(file["sha256"]) == 64
    assert file["parts"] == {"text_encoder": 3, "unet": 12}
    assert (file["ranks"], file["alphas"], file["scales"]) == ({"4": 15}, {"2": 15}, {"0.5": 15})
    assert file["total"]["norm"] == pytest.approx(math.sqrt(sum(float(d.double().square().sum()) for d in made.deltas.values())), rel=1e-6)
    assert sum(block["modules"] for block in file["blocks"]) == file["total"]["modules"] == len(SHAPES)
    assert sum(block["energy_share"] for block in file["blocks"]) == pytest.approx(1)
    assert file["metadata"] == {
        **{"trigger": "hero person", "title": "", "output_name": "", "author": "", "licence": "", "trigger_origin": ""},
        **{"tags": ["character", "game"], "words": []},
    }


def test_json_of_several_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = lora(tmp_path, "a"), lora(tmp_path, "b", seed=1, alpha=6.0)
    found = facts(["inspect", a.path, b.path, a.path], capsys)
    assert [file["name"] for file in found["files"]] == ["a", "b", "a-2"]
    assert [pair["names"] for pair in found["pairs"]] == [["a", "b"], ["a", "a-2"], ["b", "a-2"]]
    first, same, _ = found["pairs"]
    assert list(first) == PAIR_KEYS
    assert [list(likeness) for likeness in (first["total"], *first["blocks"].values())] == [LIKENESS_KEYS] * (1 + len(first["blocks"]))
    x, y = (torch.cat([made.deltas[path].flatten() for path in sorted(SHAPES)]).double() for made in (a, b))
    assert first["total"]["cosine"] == pytest.approx(float(x @ y / x.norm() / y.norm()), abs=1e-6)
    assert first["strength_ratio"] == pytest.approx(float(x.norm() / y.norm()), rel=1e-5)
    assert (first["shared"], first["only"], first["shape_conflicts"]) == (15, [0, 0], {})
    assert same["total"]["cosine"] == pytest.approx(1)
    assert "a and a-2 are the same file" in found["diagnosis"]
    assert sum("b is 3." in sentence for sentence in found["diagnosis"]) == 2


def test_the_demo_sources_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = told(["inspect", "demo:octopus", "demo:hat"], capsys)
    assert err == ""
    assert "A  octopus\n" in out
    assert f"file        {demo_sources()['hat'].path}\n" in out
    assert out.count("family      demo\n") == 2
    assert "trigger     inko\n" in out  # the file's own header does not tell
    assert "modules     text_encoder 12 · unet 272\n" in out
    assert "\n• octopus and hat read much the same directions (overlap " in out
    for part in ("block modules", "OUT11", "A·B ", "an estimate from 64 × 64 entries of every module"):
        assert part in out


def test_ranks_and_alphas_that_differ(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    some = lora(tmp_path, "some", rank=lambda index: 8 if index == 3 else 4, alpha=lambda index: float(1 + index)).path
    out, _ = told(["inspect", some], capsys)
    assert "rank        4 (1 of 15 differ: 4 to 8) · alpha 1 to 15 (15 values) · scale α/r 0.25 to 3.75 (14 values)\n" in out


@pytest.mark.parametrize("width", [80, 120])
def test_tables_fit_the_terminal(width: int) -> None:
    """No line is longer than the terminal, no row is cut or wrapped, also with more pairs than columns have room for."""
    found = examine(gather(["demo:neon", "demo:octopus", "demo:hat", "demo:owl", "demo:robot", "demo:mosaic"], Reading()))
    screen = io.StringIO()
    print_inspection(found, Console(file=screen, force_terminal=True, no_color=True, width=width, highlight=False))
    lines = screen.getvalue().replace("\x1b[1m", "").replace("\x1b[2m", "").replace("\x1b[0m", "").splitlines()
    assert max(map(cell_len, lines)) <= width
    assert not [text for text in lines if "…" in text and not text.startswith("mean … max")]
    rows = [text.split() for text in lines if text.startswith("OUT05 ")]
    assert {len(row) for row in rows[:6]} == {13}  # twelve columns, one of which holds a space
    heads = [text.split()[1:] for text in lines if text.startswith("block") and "·" in text]
    assert [pair for head in heads for pair in head] == [f"{a}·{b}" for i, a in enumerate("ABCDEF") for b in "ABCDEF"[i + 1 :]]
    assert all(len(row) == 1 + len(head) for row, head in zip(rows[6:], heads, strict=True))


def test_files_that_do_not_fit_are_told_not_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    xl = lora(tmp_path, "xl", shapes={K: (64, 2048)}).path
    sd = lora(tmp_path, "sd", shapes={K: (64, 768)}).path
    other = lora(tmp_path, "other", shapes={"unet.conv_out": (4, 16, 3, 3)}).path
    out, err = told(["inspect", xl, sd, other], capsys)
    assert err == ""
    assert out.splitlines()[-3:] == [
        "• xl is for sdxl, sd for sd1: they cannot be merged",
        "• xl and other cannot be merged: no module is changed by both",
        "• sd and other cannot be merged: no module is changed by both",
    ]
    first = facts(["inspect", xl, sd], capsys)["pairs"][0]
    assert first["shape_conflicts"] == {K: [[64, 2048], [64, 768]]}
    assert (first["shared"], first["strength_ratio"], first["equal_weights"], first["blocks"]) == (0, None, None, {})


def test_a_directory_stands_for_what_fits_the_first_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "loras"
    (folder / "inside").mkdir(parents=True)
    for place in (folder, folder / "inside"):
        lora(place, "b", seed=1)
    first = lora(folder, "a").path
    lora(folder, "xl", shapes={K: (64, 2048)})
    lora(folder, "other", shapes={"unet.conv_out": (4, 16, 3, 3)})
    (folder / "broken.safetensors").write_bytes(b"no")
    (folder / "notes.txt").write_text("no LoRA")
    for words, names in (([folder], ["a", "b"]), ([first, folder], ["a", "b"]), ([folder, first], ["a", "b", "a-2"])):
        out, err = told(["inspect", *words, "--json"], capsys)
        assert [file["name"] for file in json.loads(out)["files"]] == names
        assert err == "3 left out: 2 with no shared module, 1 cannot be read\n"
    assert [tuple(item.values())[1:] for item in facts(["inspect", folder], capsys)["left_out"]] == [
        (
            "cannot be read",
            line(f"{folder}/broken.safetensors: not a safetensors file — download or export the file again as safetensors"),
        ),
        ("with no shared module", f"{folder}/other.safetensors: with no shared module"),
        ("with no shared module", f"{folder}/xl.safetensors: with no shared module"),
    ]
    _, err = told(["inspect", folder / "xl.safetensors", folder], capsys)
    assert err == "4 left out: 3 with no shared module, 1 cannot be read\n"


def test_a_family_that_differs_is_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, width in (("a", 768), ("b", 2048), ("c", 1024), ("d", 2048)):
        lora(tmp_path, name, shapes={K: (64, width)})
    _, err = told(["inspect", tmp_path], capsys)
    assert err == "3 left out: 2 for sdxl, 1 for sd2\n"


def test_refusals(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good, broken = lora(tmp_path, "good").path, tmp_path / "only" / "broken.safetensors"
    empty = tmp_path / "empty"
    for folder in (empty, broken.parent):
        folder.mkdir()
    broken.write_bytes(b"no")
    unreadable = f"{broken}: not a safetensors file — download or export the file again as safetensors"
    for words, expected in (
        (["nowhere.safetensors"], "nowhere.safetensors: does not exist — check the path"),
        ([good, "nowhere.safetensors"], "nowhere.safetensors: does not exist — check the path"),
        ([good, broken], unreadable),
        ([empty], f"{empty}: holds no .safetensors file — name the directory that your LoRAs lie in"),
        ([broken.parent], f"{broken.parent}: nothing to inspect, 1 left out: 1 cannot be read — first {unreadable}"),
    ):
        assert refusal(["inspect", *words], capsys) == expected
    assert refusal(["inspect", "demo:nobody"], capsys).startswith("demo:nobody: there is no demo source 'nobody' — choose from demo:neon")
    assert refusal(["inspect"], capsys) == 'Command "inspect" parameter FILES requires an argument — see optimize --help'
    with pytest.raises(UsageError, match="no file given"):
        gather([], Reading())


def test_an_alpha_beyond_all_measure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Half precision and alpha tensors stop far below; a number in a header does not."""
    config = {"unet.r": 4, "unet.lora_alpha": 1e300}
    path = diffusers_file(tmp_path / "huge.safetensors", random_parts({K: (24, 16)}), config=config).path
    expected = f"{path}: {K}: alpha is 1e+300, which no training has used — correct the file's header, or get the file again"
    assert refusal(["inspect", path], capsys) == expected
    lora(tmp_path, "good", shapes={K: (24, 16)})
    found = facts(["inspect", tmp_path], capsys)
    assert ([file["name"] for file in found["files"]], found["left_out"][0]["reason"]) == (["good"], "cannot be read")


def test_the_greatest_numbers_that_a_file_can_hold(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lora(tmp_path, "great", shapes={K: (24, 16)}).path
    great = torch.finfo(torch.float32).max
    tensors = {
        name: torch.full_like(t, 1e30 if name.endswith("alpha") else great, dtype=torch.float32) for name, t in load_file(path).items()
    }
    save_file(tensors, path)
    (file,) = facts(["inspect", path], capsys)["files"]
    assert file["total"]["norm"] == pytest.approx(1e30 / 4 * 4 * great**2 * math.sqrt(24 * 16), rel=1e-5)
    assert file["total"]["effective_rank"] == pytest.approx(1)


def test_hostile_metadata_is_printed_harmlessly(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = {f"{HOSTILE} {index}": 100 - index for index in range(50)}
    metadata = {
        "modelspec.trigger_phrase": HOSTILE * 1000,
        "modelspec.title": "[link=http://x]click[/link]",
        "modelspec.author": HOSTILE,
        "modelspec.license": "\n\t ",
        "modelspec.tags": ",".join([HOSTILE] * 3 + ["b", "[/]"]),
        "ss_output_name": "../../../etc/passwd",
        "ss_tag_frequency": json.dumps({"10_dir": words, "5_dir": {"most": 10**6}}),
    }
    path = lora(tmp_path, "evil", metadata=metadata).path
    harmless = r"[red]evil[/red] \x1b[31m next\u202e line"
    out, err = told(["inspect", path], capsys)
    assert err == ""
    assert not set(out) & {"\x1b", "\u202e", "\r", "\t"}
    lines = dict(text.split(maxsplit=1) for text in out.splitlines() if text and " " in text)
    assert lines["trigger"].startswith(harmless)
    assert len(lines["trigger"]) == LONGEST
    assert lines["title"] == "[link=http://x]click[/link]"
    assert lines["author"] == harmless
    assert "licence" not in lines
    assert lines["tags"] == f"{line(HOSTILE, 40)}, b, [/]"
    assert lines["words"].startswith("most, [red]evil[/red]")
    known = facts(["inspect", path], capsys)["files"][0]["metadata"]
    assert (known["author"], known["output_name"]) == (harmless, "../../../etc/passwd")
    assert len(known["words"]) <= MOST_WORDS


@pytest.mark.parametrize(
    "text", ["[", "[]", "3", "null", '{"a": 3}', '{"a": {"b": "c"}}', "[" * 100_000, '{"a": {"b": 1e999}}', '{"a": {"": 3}}', "1" * 5000]
)
def test_training_words_that_are_none(text: str) -> None:
    assert particulars({"ss_tag_frequency": text}).words == ()


def test_training_words_are_the_most_frequent_over_all_folders() -> None:
    table = {"a": {"hat": 2, "dog": 3}, "b": {"hat": 2, "cat": 1}}
    assert particulars({"ss_tag_frequency": json.dumps(table)}).words == ("hat", "dog", "cat")
    many = {"a": {f"w{index}": 100 - index for index in range(60)}}
    assert particulars({"ss_tag_frequency": json.dumps(many)}).words == tuple(f"w{index}" for index in range(MOST_WORDS))


def test_a_trigger_that_is_a_guess_is_shown_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    captions = {"ss_tag_frequency": '{"10_ohwx woman": {"ohwx woman": 12}}', "ss_dataset_dirs": '{"10_ohwx woman": {"img_count": 12}}'}
    path = str(lora(tmp_path, "hero", metadata=captions).path)
    known = facts(["inspect", path], capsys)["files"][0]["metadata"]
    assert (known["trigger"], known["trigger_origin"]) == ("ohwx woman", "the training captions")
    assert execute(["inspect", path]) == 0
    assert "ohwx woman (a guess from the training captions)" in " ".join(capsys.readouterr().out.split())


def test_lines_are_cut_and_the_demo_worlds_trigger_wins() -> None:
    assert line("a" * 10, 10) == "a" * 10
    assert line("a" * 11, 10) == "a" * 9 + "…"
    assert line("\x1b" * 10**6, 20) == r"\x1b\x1b\x1b\x1b\x1b"[:19] + "…"
    assert line("  a \n b  ") == "a b"
    assert particulars({"trigger_word": "a", "ss_trigger_phrase": "b"}).trigger == "b"
    assert particulars({"trigger_word": "a"}, "").trigger == ""


def test_unknown_tensors_are_named_where_they_are_allowed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = lora(tmp_path, "good").path
    tensors = load_file(path) | {f"mystery.\x1b[31m{index:02d}": torch.ones(1) for index in range(12)}
    save_file(tensors, path)
    assert "12 of 57 tensors are not understood" in refusal(["inspect", path], capsys)
    out, err = told(["inspect", path, "--allow-unknown"], capsys)
    assert err.startswith(r"warning: good: 12 tensors are left out: mystery.\x1b[31m00 (")
    assert err.endswith("; and 2 more\n")
    assert err.count("\n") == 1
    assert "text_encoder 3 · unet 12" in out
    file = facts(["inspect", path, "--allow-unknown"], capsys)["files"][0]
    assert (file["unknown_tensors"], len(file["unknown"])) == (12, 10)


def test_marks() -> None:
    assert [mark(index) for index in (0, 1, 25, 26, 27, 51, 52, 701, 702)] == ["A", "B", "Z", "AA", "AB", "AZ", "BA", "ZZ", "AAA"]


def test_in_a_process_of_its_own(tmp_path: Path) -> None:
    a, b = lora(tmp_path, "a").path, lora(tmp_path, "b", seed=1).path
    command = [sys.executable, "-m", "optimizer", "inspect", str(a), str(b)]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.endswith("• a and b are independent (cosine ≈ 0): a plain sum keeps both, TIES has nothing to elect\n")


def test_a_file_that_needs_the_base(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = kohya_file(tmp_path / "plain.safetensors", random_parts({K: (24, 16)})).path
    dora = edited(source, tmp_path / "dora.safetensors", lambda tensors: tensors.update({f"{kohya_name(K)}.dora_scale": torch.ones(24, 1)}))
    assert "is DoRA, whose change depends on the base weight (1 modules) — give the base model's folder" in refusal(
        ["inspect", dora], capsys
    )
    tiny_pipeline().save_pretrained(tmp_path / "sd")
    capsys.readouterr()  # diffusers' progress
    out, err = told(["inspect", dora, "--base", tmp_path / "sd", "--json"], capsys)
    assert err == ""
    assert json.loads(out)["files"][0]["kinds"] == {"DoRA": 1}
    problem = "holds no safetensors weights of a diffusers pipeline — give the folder of one"
    assert refusal(["inspect", dora, "--base", tmp_path], capsys) == f"{tmp_path}: {problem}"


def test_a_distillation_lora_is_pointed_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fast, plain = lora(tmp_path, "sdxl_lightning_4step").path, lora(tmp_path, "plain").path
    out, _ = told(["inspect", fast], capsys)
    assert "caution     calls itself a distillation LoRA (Lightning), which changes how many steps a picture needs" in out
    assert "caution" not in told(["inspect", plain], capsys)[0]
    assert [file["distillation"] for file in facts(["inspect", fast, plain], capsys)["files"]] == ["Lightning", None]
