"""Documentation pages as programs: their fenced blocks, in order, in one namespace."""

import doctest
import io
import re
import sys
import types
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import typer.main

from mutorch.cli.app import app

OPTIONS = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
_FENCE = re.compile(r"^```(\S*)[ ]*([^\n]*)\n(.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    """One fenced block.

    Attributes:
        line: the line of the page that its first line stands on.
        language: `python`, `text`, `bash`, ... as written after the fence.
        info: what follows the language: `file=NAME` for a block that is a file, `run` for commands that are run.
        is_next: whether nothing but blank lines stands between it and the block before.
    """

    line: int
    language: str
    info: str
    code: str
    is_next: bool


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    blocks, end = [], 0
    for match in _FENCE.finditer(text):
        line = text.count("\n", 0, match.start(3)) + 1
        blocks.append(Block(line, match[1], match[2].strip(), match[3], not text[end : match.start()].strip()))
        end = match.end()
    return blocks


def run_page(page: Path) -> int:
    """Run a page in the current folder and compare what it says that it prints; returns how many blocks ran.

    `python` blocks run one after the other in one module; those with `>>>` as doctests. A `text` block right after a
    `python` block is what that one prints. A block with `file=NAME` is written to that file, and with `file=NAME run` it
    is a program that runs by itself. `bash run` blocks consist of `mutorch` commands, which run in this process.
    """
    module = types.ModuleType(page.stem.replace("-", "_").lower())
    sys.modules[module.__name__] = module  # so that classes of the page can be pickled
    printed: str | None = None
    ran = 0
    for block in blocks_of(page):
        before, printed = printed, None
        if block.info.startswith("file="):
            Path(block.info.split()[0].removeprefix("file=")).write_text(block.code, encoding="utf-8")
        if block.language == "python" and block.info.endswith(" run"):
            printed = _run(block, page, types.ModuleType("__main__"))
            ran += 1
        elif block.language == "python" and not block.info:
            printed = _run(block, page, module)
            ran += 1
        elif block.language == "text" and block.is_next and before is not None:
            _same(block.code, before, f"{page.name}:{block.line}")
        elif block.language == "bash" and block.info == "run":
            for command in _commands(block.code):
                typer.main.get_command(app)(command, standalone_mode=False)
            ran += 1
    return ran


def _run(block: Block, page: Path, module: types.ModuleType) -> str:
    if block.code.lstrip().startswith(">>>"):
        _run_session(block, page, module)
        return ""
    # Line numbers and source are those of the page, in tracebacks too.
    code = compile("\n" * (block.line - 1) + block.code, str(page), "exec")
    out = io.StringIO()
    with redirect_stdout(out):
        exec(code, module.__dict__)
    return out.getvalue()


def _run_session(block: Block, page: Path, module: types.ModuleType) -> None:
    session = doctest.DocTestParser().get_doctest(block.code, {}, page.name, str(page), block.line - 1)
    session.globs = module.__dict__
    report = io.StringIO()
    runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
    runner.run(session, out=report.write, clear_globs=False)
    assert runner.failures == 0, report.getvalue()


def _same(expected: str, found: str, where: str) -> None:
    if not doctest.OutputChecker().check_output(expected, found, OPTIONS):
        raise AssertionError(f"{where}: the page says that this is printed:\n{expected}\nand printed is:\n{found}")


def _commands(code: str) -> Iterator[list[str]]:
    for line in code.splitlines():
        words = line.partition("#")[0].split()
        if words:
            assert words[0] == "mutorch", f"only mutorch commands are run, not {line!r}"
            yield words[1:]


def links_of(page: Path) -> Iterator[tuple[str, str]]:
    """The relative links of a page, as (path, anchor)."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        if not re.match(r"[a-z]+:", target):
            path, _, anchor = target.partition("#")
            yield path, anchor


def anchors_of(page: Path) -> set[str]:
    """What a link to a page may name after `#`."""
    prose = _FENCE.sub("", page.read_text(encoding="utf-8"))
    titles = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}
