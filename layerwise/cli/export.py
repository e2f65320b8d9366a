"""A trained stack for others: a program of PyTorch or ONNX, or a folder."""

from pathlib import Path

from layerwise.cli import Options
from layerwise.errors import SettingError

SUFFIXES = {".pt2": "torch", ".onnx": "onnx"}


def main(arguments: list[str]) -> None:
    """Write it, and say how to load it."""
    options = Options("export", __doc__)
    options.add_argument("run", metavar="RUN", help="a run directory, such as runs/digits-seed0")
    options.add_argument("out", metavar="OUT", help="the file to write, such as digits.pt2 or digits.onnx; or a folder")
    formats = "torch and onnx need no layerwise to run; default: by the ending of OUT, .pt2 or .onnx, else safetensors"
    options.add_argument("--format", choices=["torch", "onnx", "safetensors"], help=formats)
    given, _ = options.read(arguments)
    out = Path(given.out)
    kind = given.format or SUFFIXES.get(out.suffix, "safetensors")

    from layerwise.export import FORMATS, LOADED
    from layerwise.run.files import output_file
    from layerwise.trained import load

    if kind != "safetensors":
        out = output_file("OUT", given.out)
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise SettingError(f"OUT: {out} is there already; give a new folder")
    FORMATS[kind](load(given.run), out)
    print(f"{given.out}: {LOADED[kind].format(given.out)}")
