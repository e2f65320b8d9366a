"""configs/SETTINGS.md: every setting, with its default and its meaning, as the program itself says them.

python -m tests.settings_page     writes it
"""

from jsonargparse import SUPPRESS

from layerwise.config import Config
from layerwise.parsing import run_parser
from tests.conftest import ROOT

PAGE = ROOT / "configs" / "SETTINGS.md"
HEAD = """# Settings

Written by `python -m tests.settings_page` from the program itself; `layerwise train --help` prints the same.

A setting is given on the command line, `--layer.atoms 512`, or in a recipe, `layer: {atoms: 512}`. Those of `layer`
and `optimizer` hold for every layer. A single layer has its own by `--layers.2.atoms 512` or
`--layers.2.optimizer.epochs 20`, in a recipe `layers: {2: {atoms: 512, optimizer: {epochs: 20}}}`. What is typed wins
over the recipe, and what is said of a single layer over what is said of all. The recipes here change some of these
defaults; `--print_config` prints what a command would use.

| setting | default | meaning |
|---|---|---|
"""


def page() -> str:
    """What the file should hold."""
    rows = []
    for action in run_parser()._actions:
        if action.help == SUPPRESS or action.dest in ("help", "print_shtab"):
            continue
        default: object = Config()
        for part in action.dest.split("."):
            default = getattr(default, part)
        named = default is None or isinstance(default, bool)
        shown = {None: "null", True: "true", False: "false"}[default] if named else default  # type: ignore[index]
        meaning = " ".join(str(action.help).split()).replace("%%", "%").replace("|", "\\|")
        rows.append(f"| `{action.dest}` | {shown} | {meaning} |")
    return HEAD + "\n".join(rows) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
