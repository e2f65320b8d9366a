"""The version of this package."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("layerwise")
except PackageNotFoundError:  # a source folder that is used without being installed
    VERSION = "unknown"
