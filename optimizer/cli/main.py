"""Entry point: parse the command line, run the command, turn every error into one line and an exit code."""

from __future__ import annotations

import re
import sys
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from cyclopts import App, Group, Parameter
from cyclopts.config import Dict, Env
from cyclopts.exceptions import CycloptsError, UnusedCliTokensError
from cyclopts.help import DefaultFormatter
from pydantic import ValidationError

from optimizer.cli.commands import search as main_job
from optimizer.cli.commands.config import config
from optimizer.cli.commands.dashboard import dashboard
from optimizer.cli.commands.demo import demo
from optimizer.cli.commands.extract import extract
from optimizer.cli.commands.inspect import inspect
from optimizer.cli.commands.ls import ls
from optimizer.cli.commands.preview import preview
from optimizer.cli.commands.repair import repair
from optimizer.cli.commands.report import report
from optimizer.cli.commands.status import status
from optimizer.cli.commands.worker import worker
from optimizer.cli.help import (
    EXAMPLES,
    MERGE_EXAMPLES,
    MERGE_NOTES,
    MERGE_SUMMARY,
    MERGE_USAGE,
    NOTES,
    SUMMARY,
    USAGE,
    examples,
    formatter,
    print_short_help,
)
from optimizer.cli.options import PANELS, Options
from optimizer.errors import OptimizerError, UsageError
from optimizer.search.config import Config, refused
from optimizer.text import one_line

MERGE = "optimizer.cli.commands.merge:merge"
_COMMANDS: tuple[Any, ...] = (  # MERGE is imported when it is run: it needs torch, for which no other help should wait
    main_job.resume,
    status,
    report,
    dashboard,
    worker,
    repair,
    MERGE,
    preview,
    extract,
    inspect,
    ls,
    demo,
    config,
)
_MERGE_TEXT: dict[str, Any] = {
    "help": MERGE_SUMMARY,
    "usage": MERGE_USAGE,
    "help_prologue": examples(MERGE_EXAMPLES),
    "help_epilogue": MERGE_NOTES,
}
_PLAIN: dict[str, Any] = {"help_prologue": "", "help_epilogue": "", "help_format": "markdown", "help_formatter": DefaultFormatter()}
_CONFIG = "--config"
_LIST = re.compile(r"-[\d.]+,")
_DEFAULTS = Options()


def build_app(options: dict[str, Any] | None = None, source: str = "") -> App:
    """The command-line application.

    Args:
        options: the main job's options where neither flags nor ``OPTIMIZE_*`` variables give them.
        source: where these come from, for errors.
    """
    app = App(
        name="optimize",
        help=SUMMARY,
        help_prologue=examples(EXAMPLES),
        help_epilogue=NOTES,
        help_format="plaintext",
        help_formatter=formatter(),
        usage=USAGE,
        group_commands=Group("Commands", sort_key=len(PANELS)),
        version_flags=["--version"],
        version=_version,
        default_parameter=Parameter(consume_multiple=True, negative=(), show_default=_default),
        config=[Env("OPTIMIZE_", command=False), Dict(options or {}, source=source)],
        help_on_error=False,
    )
    app.default(search)
    for place, command in enumerate(_COMMANDS):
        app.command(command, sort_key=place, **(_MERGE_TEXT | {"help_formatter": formatter()} if command == MERGE else _PLAIN))
    app.command(completion, sort_key=len(_COMMANDS), **_PLAIN)
    return app


def completion(shell: Literal["bash", "zsh", "fish"]) -> int:
    """Print a script that completes commands and options; the shell has to read it.

    bash: eval "$(optimize completion bash)" in ~/.bashrc; zsh: optimize completion zsh > a file _optimize in a folder of $fpath; fish:
    optimize completion fish > ~/.config/fish/completions/optimize.fish.

    Args:
        shell: the shell.
    """
    print(build_app().generate_completion(shell=shell), end="")
    return 0


def search(*, options: Annotated[Options, Parameter(name="*")] = _DEFAULTS) -> int:
    """Search for the best merge of the sources and export it."""
    return main_job.run_and_tell(Config.of(**options.model_dump()))


def _default(value: Any) -> str | None:
    """How the help shows a default; an empty one says nothing."""
    if value is False or value in (None, "", ()):
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(execute(sys.argv[1:] if arguments is None else arguments))


def execute(arguments: list[str]) -> int:
    """Run the command line; returns the exit code. Problems are told in one line on stderr."""
    try:
        words, file = _split_config(_with_lists(arguments))
        if not arguments:
            print_short_help()
            return 0
        app = build_app(_read(file), str(file)) if file else build_app()
        result: Any = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        return result if isinstance(result, int) else 0
    except OptimizerError as error:
        return _told(error)
    except CycloptsError as error:
        return _told(_usage(error))
    except OSError as error:
        return _told(OptimizerError(error.strerror or str(error), where=error.filename))
    except KeyboardInterrupt:
        return 130


def _with_lists(arguments: list[str]) -> list[str]:
    """Returns the arguments with a space before lists of numbers that begin with a minus sign, which the parser takes for options."""
    return [f" {word}" if _LIST.match(word) else word for word in arguments]


def _split_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Take ``--config FILE`` out of the arguments."""
    for index, word in enumerate(arguments):
        if word == _CONFIG or word.startswith(f"{_CONFIG}="):
            _, attached, value = word.partition("=")
            taken = 1 if attached else 2
            value = value if attached else "".join(arguments[index + 1 : index + 2])
            if not value:
                raise UsageError("needs a file", where=_CONFIG, remedy="give a YAML file")
            return [*arguments[:index], *arguments[index + taken :]], Path(value)
    return list(arguments), None


def _read(file: Path) -> dict[str, Any]:
    """The options in a YAML file; an option without a value counts as not given."""
    try:
        options = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read ({(error.strerror or str(error)).lower()})", where=file, remedy="give a YAML file") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"is not YAML: {one_line(error)}", where=file, remedy="correct the syntax") from error
    if not isinstance(options, dict):
        raise UsageError("holds no options", where=file, remedy="write one a line, such as budget: 50")
    return {str(name): value for name, value in options.items() if value is not None}


def _usage(error: CycloptsError) -> UsageError:
    """What is wrong with the command line, without the parser's own way of putting it."""
    if isinstance(error.__cause__, ValidationError):
        return refused(error.__cause__)
    if isinstance(error, UnusedCliTokensError):
        words = list(error.unused_tokens or ("",))
        near = get_close_matches(words[0], [str(name) for name in build_app() if not str(name).startswith("-")], n=1)
        meant = f"did you mean {near[0]}? See" if near else "see"
        return UsageError(f"there is no command {words[0]!r}", remedy=f"{meant} optimize --help")
    error.verbose = False
    return UsageError(one_line(error).rstrip("."), remedy="see optimize --help")


def _told(error: OptimizerError) -> int:
    print(f"optimize: {one_line(error)}", file=sys.stderr)
    return error.exit_code


def _version() -> str:
    from importlib.metadata import version

    return version("multilora-optimizer")
