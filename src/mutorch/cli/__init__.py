"""The command line: `mutorch search`, `prune`, `train`, `export`, `report`, `doctor`."""

import importlib
import sys

from mutorch.errors import MissingExtraError
from mutorch.utils import require


def main() -> None:
    """Run the command line; without the extra `cli`, say how to install it."""
    try:
        require("typer", extra="cli")
        require("rich", extra="cli")
    except MissingExtraError as error:
        sys.exit(f"mutorch: {error}")
    importlib.import_module("mutorch.cli.app").run()
