"""The files of one layer: written one after another, and checked, to the last bit, when they are read."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from layerwise import memory
from layerwise.config.identity import fingerprint
from layerwise.errors import DamagedRun
from layerwise.run.files import read_record, read_tensors, sha256, write_record, write_tensors
from layerwise.run.record import LayerRecord
from layerwise.version import VERSION

if TYPE_CHECKING:  # a record is read without torch
    from torch import Tensor

    from layerwise.nn.dictionary import PatchDictionary
    from layerwise.nn.layer import ProbedLayer

FORMAT = 4
"""of the files; 1 had no number and other names of settings and tensors, 2 did not tie a layer to the one below, of 3
not every bit was checked"""
DICTIONARY, CHECKPOINT, LAYER, RECORD = "dictionary.safetensors", "last.ckpt", "layer.safetensors", "layer.json"
"""in the order in which they are written"""
OF_DICTIONARY = "layer.embedding.dictionary."
"""how a layer's own names of its dictionary's tensors begin"""


def assembled(record: LayerRecord, tensors: Mapping[str, "Tensor"]) -> "ProbedLayer":
    """A finished layer from its tensors; KeyError or RuntimeError where they are not those of such a layer."""
    from layerwise.nn.dictionary import PatchDictionary
    from layerwise.nn.layer import build_layer
    from layerwise.ops import as_torch_begins

    own = {name.removeprefix(OF_DICTIONARY): value for name, value in tensors.items()}
    dictionary = PatchDictionary.of(own)
    c, h, w = record.input_shape
    with as_torch_begins():
        layer = build_layer(record.config, dictionary, (c, h, w), len(record.classes), record.layer)
    layer.load_state_dict(tensors)
    return layer


class LayerFolder:
    """The files of layer `number`, from 1, of a run. What reads one raises DamagedRun where it is not as written."""

    def __init__(self, run: Path, number: int) -> None:
        self.path = run / f"layer-{number}"
        self.number = number

    def save_dictionary(self, dictionary: "PatchDictionary", settings: dict[str, Any]) -> "PatchDictionary":
        """Write the dictionary, and the settings that led to it.

        What is returned is what `dictionary` will read, so that a resumed training has the same bits, on a GPU, too.
        """
        self.path.mkdir(exist_ok=True)
        write_tensors(self.path / DICTIONARY, dictionary.state_dict(), {"format": FORMAT, "settings": settings})
        return type(dictionary).of({name: value.cpu() for name, value in dictionary.state_dict().items()})

    def dictionary(self) -> "PatchDictionary | None":
        """Read the dictionary; None where there is none yet."""
        from layerwise.nn.dictionary import PatchDictionary

        if self.begun_with() is None:
            return None
        with self._reading(DICTIONARY) as path:
            return PatchDictionary.of(read_tensors(path)[0])

    def begun_with(self) -> dict[str, Any] | None:
        """The settings that led to the dictionary; None where there is none yet."""
        if not self._holds(DICTIONARY):
            if later := [name for name in (CHECKPOINT, LAYER, RECORD) if self._holds(name)]:
                raise self.damaged(self.path / DICTIONARY, f"missing, though there is {later[0]}")
            return None
        with self._reading(DICTIONARY) as path:
            about = read_tensors(path)[1]
            self._check_format(about)
            return dict(about["settings"])

    def save(self, layer: "ProbedLayer", record: LayerRecord) -> LayerRecord:
        """Write the finished layer, then its record, which makes it count."""
        trained = {name: value for name, value in layer.state_dict().items() if ".dictionary." not in name}
        write_tensors(self.path / LAYER, trained)
        versions = {"layerwise": VERSION} | {name: version(name) for name in ("torch", "lightning")}
        files = {name: sha256(self.path / name) for name in (DICTIONARY, LAYER)}
        write_record(self.path / RECORD, vars(record) | {"format": FORMAT, "versions": versions, "files": files})
        (self.path / CHECKPOINT).unlink(missing_ok=True)
        return record

    def record(self) -> LayerRecord | None:
        """Read the record, and check the files; None where the layer is not finished."""
        if not self._holds(RECORD):
            return None
        with self._reading(RECORD) as path:
            values = read_record(path, self._check_format)
            record = LayerRecord(**{name: values[name] for name in LayerRecord.__dataclass_fields__})
            if record.layer != self.number:
                raise ValueError(f"it is of layer {record.layer}")
            _ = record.config
            files = dict(values["files"])
        for name in (DICTIONARY, LAYER):
            with self._reading(name) as path:
                if not self._holds(name) or sha256(path) != files.get(name):
                    raise self.damaged(path)
        return record

    def _holds(self, name: str) -> bool:
        """Whether there is such a file, which must be one that can be read."""
        with self._reading(name) as path:
            if not path.exists():
                return False
            if not path.is_file():
                raise self.damaged(path, "it is no file")
            path.open("rb").close()
        return True

    def identity(self) -> str:
        """What stands for the files, to the layer above; nothing where the layer is not finished."""
        if not self._holds(RECORD):
            return ""
        with self._reading(RECORD) as path:
            return fingerprint(read_record(path)["files"])

    def load(self, record: LayerRecord) -> "ProbedLayer":
        """Read the finished layer."""
        with self._reading(DICTIONARY) as path:
            fixed = {f"{OF_DICTIONARY}{name}": value for name, value in read_tensors(path)[0].items()}
        with self._reading(LAYER) as path:
            return assembled(record, fixed | read_tensors(path)[0])

    def damaged(self, path: Path, why: object = "") -> DamagedRun:
        """That a file is not as it was written, in words."""
        reason = f" ({' '.join(str(why).split())})" if str(why) else ""
        return DamagedRun(f"{path} is missing or damaged{reason}; {self.again}")

    @property
    def again(self) -> str:
        """How to train it again, in words."""
        return f"give --restart_from {self.number} to train it and the layers above it again"

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """A file's path; what goes wrong with it within is told: it cannot be read, or it is not as it was written."""
        path = self.path / name
        try:
            yield path
        except DamagedRun:
            raise
        except OSError as error:
            remedy = f"let it be read, or give --restart_from {self.number}"
            raise DamagedRun(f"{path} cannot be read ({error.strerror or error}); {remedy}") from error
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            if memory.is_lacking(error):
                raise
            raise self.damaged(path, error) from error

    def _check_format(self, about: dict[str, Any]) -> None:
        if (found := about.get("format", 1)) != FORMAT:
            formats = f"format {found}, this one reads {FORMAT}"
            remedy = "give another --run_dir to train anew, or read it with that version"
            raise DamagedRun(f"{self.path} was written by another version of layerwise ({formats}); {remedy}")
