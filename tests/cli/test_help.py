"""The help text: what is on it, in which order, and that it stays short."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass, field

import pytest

from optimizer.cli.main import build_app, execute
from optimizer.jobs.merge_options import MergeOptions
from optimizer.merging import PARAMETERS, Recipe
from optimizer.search.config import OPTIONS, Config, checked
from optimizer.search.config.values import option_name
from studies.demo.world import demo_sources

PANELS = ["Sources", "Base model", "Search", "Pictures and scores", "Output", "Memory and speed", "Many workers", "Commands"]
MERGE_PANELS = [
    "Sources",
    "Method",
    "Output",
    "Rank and size of the file",
    "Base model and full models",
    "Parameters of particular methods",
]
RARE = {"Sources": ["--allow-unknown", "--force"], "Base model": ["--denoiser", "--base-config"], "Search": ["--seed", "--fork"]}
COMMANDS = [
    "resume",
    "status",
    "report",
    "dashboard",
    "worker",
    "repair",
    "merge",
    "preview",
    "extract",
    "inspect",
    "ls",
    "demo",
    "config",
    "completion",
    "--help",
    "--version",
]


@dataclass
class Page:
    """The help text in parts.

    Attributes:
        before: lines above the first panel.
        panels: title → name of an option or command → lines of its description.
        after: lines below the last panel.
    """

    before: list[str] = field(default_factory=list)
    panels: dict[str, dict[str, list[str]]] = field(default_factory=dict)
    after: list[str] = field(default_factory=list)


def page(text: str) -> Page:
    found = Page()
    name = ""
    for line in text.splitlines():
        if title := re.match(r"╭─ (.*?) ─+╮", line):
            found.panels[title[1]] = {}
        elif row := re.match(r"│ (?P<name>--[a-z-]+|[A-Za-z]+\b)?(?P<rest>.*)│$", line):
            panel = list(found.panels.values())[-1]
            name = row["name"] or name
            panel.setdefault(name, []).append(row["rest"].strip())
        elif not line.startswith("╰"):
            (found.after if found.panels else found.before).append(line.rstrip())
    return found


@pytest.fixture(params=[80, 120])
def columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("COLUMNS", str(request.param))
    return int(request.param)


@pytest.fixture
def shown(columns: int, capsys: pytest.CaptureFixture[str]) -> Page:
    return help_page([], columns, capsys)


@pytest.fixture
def merge_shown(columns: int, capsys: pytest.CaptureFixture[str]) -> Page:
    return help_page(["merge"], columns, capsys)


def help_page(command: list[str], columns: int, capsys: pytest.CaptureFixture[str]) -> Page:
    assert execute([*command, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert max(map(len, out.splitlines())) <= columns
    return page(out)


def test_panels_and_their_order(shown: Page) -> None:
    assert list(shown.panels) == PANELS
    assert list(shown.panels["Commands"]) == COMMANDS
    for title, rare in RARE.items():
        assert list(shown.panels[title])[-len(rare) :] == rare
    assert [next(iter(options)) for options in shown.panels.values()][:5] == ["--sources", "--base", "--budget", "--prompts", "--out"]


def test_every_option_is_in_one_panel(shown: Page) -> None:
    listed = [name for title, panel in shown.panels.items() if title != "Commands" for name in panel]
    assert sorted(listed) == sorted(map(option_name, OPTIONS))


def test_descriptions_are_short(shown: Page, columns: int) -> None:
    for panel in shown.panels.values():
        for name, lines in panel.items():
            assert len(lines) <= (2 if columns == 120 else 4), name


def test_the_page_begins_with_examples_and_ends_with_other_places_for_options(shown: Page) -> None:
    assert shown.before[0] == "Examples:"
    assert shown.before[3:6] == ["", "Usage: optimize --sources FILE FILE... --base MODEL [OPTIONS]", "       optimize COMMAND ..."]
    assert "--config FILE.yaml" in " ".join(shown.after)
    assert "OPTIMIZE_BUDGET=50" in " ".join(shown.after)


def test_the_examples_can_be_run(shown: Page, asked: list[Config]) -> None:
    for line in shown.before[1:3]:
        program, *arguments = shlex.split(line)
        assert program == "optimize"
        assert execute(arguments) == 0
    real, demo = (checked(config) for config in asked)
    assert (real.inputs.base, real.search.budget) == ("sdxl/", 50)
    assert {source.removeprefix("demo:") for source in demo.inputs.sources} <= demo_sources().keys()
    assert demo.inputs.base == ""


def test_the_panels_of_merge_and_their_order(merge_shown: Page) -> None:
    assert list(merge_shown.panels) == MERGE_PANELS
    assert [next(iter(options)) for options in merge_shown.panels.values()][:5] == ["RECIPE", "--method", "--out", "--rank", "--base"]
    assert [name.removeprefix("--").replace("-", "_") for name in merge_shown.panels[MERGE_PANELS[-1]]] == [
        name for name in Recipe.model_fields if name in PARAMETERS
    ]
    listed = [name for panel in merge_shown.panels.values() for name in panel if name not in ("RECIPE", "--json")]
    assert sorted(listed) == sorted(map(option_name, MergeOptions.model_fields))


def test_descriptions_of_merge_are_short_sentences(merge_shown: Page, columns: int) -> None:
    for panel in merge_shown.panels.values():
        for name, lines in panel.items():
            assert len(lines) <= (3 if columns == 120 else 5), name
    for name, option in MergeOptions.model_fields.items():
        assert re.fullmatch(r"[A-Z][^;]*(; [^;]*)?\.", option.description or ""), name


def test_the_page_of_merge_begins_with_examples(merge_shown: Page) -> None:
    assert merge_shown.before[0] == "Examples:"
    assert merge_shown.before[5:8] == [
        "",
        "Usage: optimize merge --sources FILE FILE... [OPTIONS]",
        "       optimize merge RECIPE [OPTIONS]",
    ]
    assert "OPTIMIZE_OUT=" in " ".join(merge_shown.after)


def test_the_examples_of_merge_can_be_parsed(merge_shown: Page) -> None:
    for line in merge_shown.before[1:4]:
        program, *arguments = shlex.split(line)
        assert program == "optimize"
        assert build_app().parse_args(arguments, exit_on_error=False, print_error=False)[1].arguments


def test_without_arguments_the_help_is_short(columns: int, capsys: pytest.CaptureFixture[str], shown: Page) -> None:
    assert execute([]) == 0
    out, err = capsys.readouterr()
    lines = [line.rstrip() for line in out.splitlines()]
    assert err == ""
    assert max(map(len, lines)) <= columns
    assert len(lines) <= 14
    assert lines[2:5] == shown.before[:3]
    assert [word for line in lines for word in re.findall(r"^  (--\w+)", line)] == ["--sources", "--base"]
    assert lines[-1] == "See all options and commands: optimize --help"
