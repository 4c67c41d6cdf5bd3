"""Wrong input: one line on stderr that says what, where and what to do; exit code 2; nothing is written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optimizer.cli.main import execute
from tests.files import kohya_file, random_parts
from tests.studio import Studio

Q = "unet.mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
K = "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k"


@pytest.fixture(autouse=True)
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, which is as empty afterwards: no default ``study`` folder, no log, no probe."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.chdir(place)
    yield
    assert list(place.iterdir()) == []


def refusal(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line on stderr, without ``optimize: ``."""
    code = execute(arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("optimize: ")
    assert err.count("\n") == 1
    assert err.endswith("\n")
    return err.removeprefix("optimize: ").rstrip("\n")


def lora(folder: Path, name: str, path: str, shape: tuple[int, ...], seed: int = 0) -> Path:
    return kohya_file(folder / f"{name}.safetensors", random_parts({path: shape}, seed=seed)).path


def missing(folder: Path, studio: Studio) -> tuple[Path, ...]:
    return studio.sources[0], folder / "nowhere.safetensors"


def no_container(folder: Path, studio: Studio) -> tuple[Path, ...]:
    return studio.sources[0], studio.words


def one(folder: Path, studio: Studio) -> tuple[Path, ...]:
    return studio.sources[:1]


def six(folder: Path, studio: Studio) -> tuple[Path, ...]:
    return studio.sources


def twice(folder: Path, studio: Studio) -> tuple[Path, ...]:
    return studio.sources[0], studio.sources[0]


def another_base(folder: Path, studio: Studio) -> tuple[Path, ...]:
    return lora(folder, "a", Q, (320, 320)), lora(folder, "b", Q, (320, 320), 1)


def two_families(folder: Path, studio: Studio) -> tuple[Path, ...]:
    return lora(folder, "xl", K, (1280, 2048)), lora(folder, "sd", K, (1280, 768))


@pytest.mark.parametrize(
    ("sources", "parts"),
    [
        (missing, ("nowhere.safetensors: ", " — ")),
        (no_container, ("words.yaml: not a safetensors file — download or export the file again as safetensors",)),
        (one, ("--sources: 1 source given — ",)),
        (six, ("--sources: 6 sources given — merge at most five, or add --force",)),
        (twice, ("are the same file — name every source once",)),
        (another_base, ("a: does not fit the base model: ", "shape (320, 320), the base model's is (24, 24)", " — use the base model")),
        (two_families, ("is for Stable Diffusion XL (its cross-attention reads text of width 2048); ", "is for Stable Diffusion 1.x (")),
    ],
)
def test_sources(
    studio: Studio,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    sources: Callable[[Path, Studio], tuple[Path, ...]],
    parts: tuple[str, ...],
) -> None:
    line = refusal(studio.arguments(sources=sources(tmp_path, studio), roles=None, triggers=None), capsys)
    for part in parts:
        assert part in line


def test_six_sources_are_merged_where_forced(studio: Studio, capsys: pytest.CaptureFixture[str]) -> None:
    """The count is no longer what is wrong."""
    arguments = studio.arguments(sources=studio.sources, roles=None, triggers=None, methods=["slerp"])
    assert refusal([*arguments, "--force"], capsys).startswith("--methods: the method 'slerp' merges at most 2 sources (got 6)")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"budget": 0}, "--budget: the budget is 0 — give the number of recipes to try, 1 or more"),
        ({"budget": -1}, "--budget: the budget is -1 — give the number of recipes to try, 1 or more"),
        ({"budget": "many"}, "--budget: got 'many' — it should be a valid integer, unable to parse string as an integer"),
        ({"base": None}, "--base: no base model given — give the diffusers folder of the model that the sources were trained on"),
        ({"roles": ["style"]}, "--roles: 1 given for 2 sources — give one per source, in the same order"),
        ({"roles": ["style", "wizard"]}, "--roles: got 'wizard' — it should be 'style', 'character' or 'concept'"),
        ({"resolution": 100}, "--resolution: got '100' — it should be a multiple of 8"),
        ({"timeout": "soon"}, "--timeout: got 'soon' — it should be a valid number, unable to parse string as a number"),
    ],
)
def test_options(studio: Studio, capsys: pytest.CaptureFixture[str], changes: dict[str, object], expected: str) -> None:
    assert refusal(studio.arguments(**changes), capsys) == expected


def test_unknown_options_commands_and_arguments(studio: Studio, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        refusal([*studio.arguments(), "--budgett", "3"], capsys)
        == "Unknown option: --budgett. Did you mean --budget? — see optimize --help"
    )
    assert refusal(["--nonsense"], capsys).startswith("Unknown option: --nonsense")
    assert refusal(["resum", "x"], capsys) == "there is no command 'resum' — did you mean resume? See optimize --help"
    assert refusal(["resume"], capsys).endswith(" — see optimize --help")
    assert refusal(["--budget", "3"], capsys).startswith("--sources: no source given")


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"base": "no/model"}, "no/model: neither a folder nor a file, and no model of this name is in the local cache"),
        ({"embedder": "no/embedder"}, "--embedder: no/embedder: "),
        ({"prompts": "nowhere.yaml"}, "nowhere.yaml: the prompts cannot be read: "),
        ({"device": "cuda:99"}, "the device 'cuda:99' cannot be used"),
    ],
)
def test_what_the_options_name_is_not_there(
    studio: Studio, capsys: pytest.CaptureFixture[str], changes: dict[str, object], part: str
) -> None:
    assert part in refusal(studio.arguments(**changes), capsys)


def test_output_that_cannot_be_written(studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, foreign = tmp_path / "file", tmp_path / "foreign"
    file.write_text("mine")
    foreign.mkdir()
    (foreign / "thesis.txt").write_text("mine")
    for out in (file, file / "below" / "study"):
        line = refusal(studio.arguments(out=out), capsys)
        assert line.startswith(f"{file}")
        assert line.endswith(" — choose a directory that can be written, on a disk with free space")
    assert refusal(studio.arguments(out=foreign), capsys) == (
        f"{foreign}: the directory holds other files and no study (thesis.txt) — choose a new or an empty directory"
    )
    assert file.read_text() == "mine"
    assert [path.name for path in foreign.iterdir()] == ["thesis.txt"]


def test_configuration_files(studio: Studio, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "run.yaml"
    words = [*studio.arguments(), "--config", str(file)]
    assert refusal(words, capsys) == f"{file}: cannot be read (no such file or directory) — give a YAML file"
    for text, message in (
        ("budget: [1\nx: }", f"{file}: is not YAML: while parsing a flow sequence"),
        ("- 1\n- 2\n", f"{file}: holds no options — write one a line, such as budget: 50"),
        ("budgett: 3\n", f'Unknown option: "[budgett]" from {file}. Did you mean --budget? — see optimize --help'),
    ):
        file.write_text(text)
        assert refusal(words, capsys).startswith(message)
    file.write_text("budget: soon\n")
    assert refusal(["--config", str(file)], capsys).startswith("--budget: got 'soon'")
    assert refusal([*studio.arguments(), "--config"], capsys) == "--config: needs a file — give a YAML file"
    assert refusal([*studio.arguments(), "--config="], capsys) == "--config: needs a file — give a YAML file"


@pytest.mark.parametrize("command", ["resume", "status", "report"])
def test_commands_on_what_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert refusal([command, "nowhere"], capsys) == "nowhere: there is no such directory — check the path of the study"
    assert refusal([command, str(tmp_path)], capsys) == (
        f"{tmp_path}: this is not a study, it holds no study.yaml — name the directory that a run was given with --out"
    )


@pytest.mark.parametrize(
    ("command", "changes"),
    [([sys.executable, "-m", "optimizer"], {"base": "nowhere"}), ([str(Path(sys.executable).parent / "optimize")], {"budget": 0})],
    ids=["python -m optimizer", "optimize"],
)
def test_in_a_process_of_its_own(studio: Studio, command: list[str], changes: dict[str, object]) -> None:
    found = subprocess.run([*command, *studio.arguments(**changes)], capture_output=True, text=True, check=False)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("optimize: ")
    assert found.stderr.count("\n") == 1
