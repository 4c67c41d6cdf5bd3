"""``optimize demo``: the sources that ship with this package."""

from __future__ import annotations

import shlex

from rich.console import Console
from rich.table import Table

from studies.demo.world import GUIDANCE, STEPS, DemoSource, demo_base, demo_embedder, demo_sources, demo_words


def demo() -> int:
    """List the demo sources, and the command that names their files one by one."""
    sources = demo_sources()
    table = Table("source", "role", "trigger")
    for name, source in sources.items():
        table.add_row(f"demo:{name}", source.role, source.trigger or "(always on)")
    console = Console(highlight=False)
    console.print(table)
    style, character = (next(s for s in sources.values() if s.role == role) for role in ("style", "character"))
    console.print(f"optimize --sources demo:{style.name} demo:{character.name} is short for", soft_wrap=True, markup=False)
    console.print(shlex.join(_in_full(style, character)), soft_wrap=True, markup=False)
    return 0


def _in_full(*sources: DemoSource) -> list[str]:
    """The command that names every file and setting of the demo world, as one does for a model of one's own."""
    files = [str(s.path) for s in sources]
    folders = ["--base", str(demo_base()), "--embedder", str(demo_embedder()), "--prompts", str(demo_words())]
    asked = ["--roles", *(s.role for s in sources), "--triggers", *(s.trigger for s in sources)]
    return ["optimize", "--sources", *files, *folders, *asked, "--steps", str(STEPS), "--guidance", str(GUIDANCE)]
