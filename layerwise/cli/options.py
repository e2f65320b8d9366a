"""Options of a verb, beside the settings that it takes."""

import argparse
from typing import NoReturn

from layerwise.config import SettingError


class Options(argparse.ArgumentParser):
    """The options of one verb; errors are one line.

    Args:
        verb: its name.
        meaning: what it does.
        settings: which settings of `layerwise train` work, too, in words; None: none do.
    """

    def __init__(self, verb: str, meaning: str, settings: str | None = None) -> None:
        also = f"Also accepts these settings of `layerwise train`: {settings}." if settings else None
        super().__init__(f"layerwise {verb}", allow_abbrev=False, description=meaning, epilog=also)
        self.takes_settings = settings is not None

    def error(self, message: str) -> NoReturn:
        """One line, as for every other mistake."""
        raise SettingError(f"{message}; see {self.prog} --help")

    def read(self, arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
        """The verb's own options, and the settings beside them.

        Raises:
            SettingError: an option that there is not, or is wrong.
        """
        given, settings = self.parse_known_args(arguments)
        if settings and not self.takes_settings:
            self.error(f"{settings[0]}: there is no such option")
        return given, settings
