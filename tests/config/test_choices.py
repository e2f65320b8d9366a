"""The choices, as they are read off the source and as they are when imported."""

import pkgutil
import subprocess
import sys
from importlib import import_module

import pytest

from layerwise.config import choices
from layerwise.config.choices import Choices
from layerwise.errors import SettingError

ALL = {name: value for name, value in vars(choices).items() if isinstance(value, Choices)}


def import_everything() -> None:
    for package in ("layerwise.nn", "layerwise.data", "layerwise.data.sets", "layerwise.training"):
        for module in pkgutil.iter_modules(import_module(package).__path__, f"{package}."):
            import_module(module.name)


@pytest.mark.parametrize("name", ALL)
def test_choices__read_off_the_source_are_those_that_importing_makes(name: str) -> None:
    import_everything()
    own = ALL[name]
    assert own.own_name == name and len(own) > 0
    assert own._written.keys() == own._made.keys()
    assert list(own) == list(own._written) and len(own) == len(own._made)
    for choice, (module, meaning) in own._written.items():
        made = own[choice]
        assert made is own._made[choice] and made.__module__ == module
        assert meaning == " ".join((made.__doc__ or "").split("\n\n")[0].split())
        assert meaning and own.meanings()[choice] == meaning


def test_choices__are_known_without_importing_what_they_stand_for() -> None:
    program = (
        "import sys; from layerwise.config import choices\n"
        "all = [own for own in vars(choices).values() if isinstance(own, choices.Choices)]\n"
        "assert 'nearest' in [name for own in all for name in own.meanings()]\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_choices__grow_by_a_decorator() -> None:
    own = Choices("GATES", "nn.gates")

    @own("mine")
    class Mine:
        """What I
        need.

        And more.
        """

    assert own["mine"] is Mine and "mine" in own and "yours" not in own
    assert list(own) == [*choices.GATES, "mine"]
    assert own.meanings()["mine"].split() == ["What", "I", "need."]
    with pytest.raises(SettingError, match="yours is not one of .*mine; import the module that defines it"):
        own["yours"]
