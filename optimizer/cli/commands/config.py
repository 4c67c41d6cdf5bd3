"""``optimize config``: what a YAML file for ``--config`` may hold."""

from __future__ import annotations

import json

from optimizer.errors import UsageError
from optimizer.search.config import example_yaml, json_schema


def config(*, schema: bool = False, example: bool = False) -> int:
    """Print the JSON schema of a YAML file for --config, or a commented example of one.

    Args:
        schema: print the JSON schema, by which editors check and complete the file.
        example: print a file with every option, its description and its default.
    """
    if schema == example:
        raise UsageError("needs --schema or --example", where="optimize config", remedy="give one of them")
    print(json.dumps(json_schema(), indent=2, ensure_ascii=False) if schema else example_yaml(), end="\n" if schema else "")
    return 0
