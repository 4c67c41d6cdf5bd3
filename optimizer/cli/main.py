"""Entry point: parse the command line, run the command, turn every error into one line and an exit code."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.config import Env, Yaml
from cyclopts.exceptions import CycloptsError
from pydantic import ValidationError

from optimizer.errors import OptimizerError, UsageError
from optimizer.search.config import Config, refused

HELP = "Find, unattended, the one merged LoRA that keeps what each of your LoRAs is good at."
_COMMANDS = ("resume", "report", "status", "demo")


def build_app(config_file: Path | None = None) -> App:
    """The command-line application; options come from flags, else ``OPTIMIZE_*`` variables, else the YAML file."""
    files = [Yaml(str(config_file), must_exist=True)] if config_file else []
    app = App(
        name="optimize",
        help=HELP,
        version_flags=["--version"],
        version=_version,
        default_parameter=Parameter(consume_multiple=True, negative=()),
        config=[Env("OPTIMIZE_", command=False), *files],
        help_on_error=False,
    )
    app.default(search)
    for name in _COMMANDS:
        app.command(f"optimizer.cli.commands:{name}", name=name)
    return app


def search(*, config: Annotated[Config, Parameter(name="*")]) -> int:
    """Search for the best merge of the sources and export it.

    Further option: --config FILE.yaml holds any of these options; a flag wins over the environment, which wins over the file.
    """
    from optimizer.cli.commands import run_and_tell

    return run_and_tell(config)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    sys.exit(execute(sys.argv[1:] if arguments is None else arguments))


def execute(arguments: list[str]) -> int:
    """Run the command line; returns the exit code. Problems are told in one line on stderr."""
    try:
        words, file = _split_config(arguments)
        if not words:
            words = ["--help"]
        result: Any = build_app(file)(words, exit_on_error=False, print_error=False, result_action="return_value")
        return result if isinstance(result, int) else 0
    except OptimizerError as error:
        return _told(error)
    except ValidationError as error:
        return _told(refused(error))
    except CycloptsError as error:
        return _told(UsageError(" ".join(str(error).split()), remedy="see optimize --help"))
    except KeyboardInterrupt:
        return 130


def _split_config(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Take ``--config FILE`` out of the arguments."""
    words = list(arguments)
    for index, word in enumerate(words):
        if word == "--config" or word.startswith("--config="):
            value = word.partition("=")[2] or (words[index + 1] if index + 1 < len(words) else "")
            del words[index : index + (1 if "=" in word else 2)]
            if not Path(value).is_file():
                raise UsageError("there is no such file", where=f"--config {value}", remedy="give a YAML file")
            return words, Path(value)
    return words, None


def _told(error: OptimizerError) -> int:
    print(f"optimize: {' '.join(str(error).split())}", file=sys.stderr)
    return error.exit_code


def _version() -> str:
    from importlib.metadata import version

    return version("multilora-optimizer")
