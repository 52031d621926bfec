"""How a recipe tells what it is doing."""

from collections.abc import Callable

Progress = Callable[[str, int, int, str], None]
"""Called with the stage, how much of it is done, how much there is, and a note."""
