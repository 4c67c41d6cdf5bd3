"""``optimize completion``: completion of commands and options in a shell."""

from __future__ import annotations

from typing import Literal


def completion(shell: Literal["bash", "zsh", "fish"]) -> int:
    """Print a script that completes commands and options; the shell has to read it.

    bash: eval "$(optimize completion bash)" in ~/.bashrc; zsh: optimize completion zsh > a file _optimize in a folder of $fpath; fish:
    optimize completion fish > ~/.config/fish/completions/optimize.fish.

    Args:
        shell: the shell.
    """
    from optimizer.cli.main import build_app  # which knows all commands, this one too

    print(build_app().generate_completion(shell=shell), end="")
    return 0
