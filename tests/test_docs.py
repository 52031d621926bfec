import doctest
import importlib
import json
import pkgutil
import socket
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from docs_pages import OPTIONS, anchors_of, links_of, run_page

import mutorch
from mutorch.cli.doctor import EXTRAS
from mutorch.registry import DATASETS, MODELS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
MODULES = [
    info.name for info in pkgutil.walk_packages(mutorch.__path__, "mutorch.") if not info.name.endswith("__main__")
]


@pytest.fixture
def clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty folder, and afterwards the registries, modules, threads and random states as they were."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with socket.socket() as free:  # pages show programs of several processes; here they run as one
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
        monkeypatch.setenv(name, value)
    modules, threads = dict(sys.modules), torch.get_num_threads()
    for registry in (MODELS, DATASETS):
        monkeypatch.setattr(registry, "_registered", dict(registry.module_dict))
    with torch.random.fork_rng():
        yield
    torch.set_num_threads(threads)
    for name in [*sys.modules]:
        file = getattr(sys.modules[name], "__file__", None)
        if name not in modules and (file is None or Path(file).is_relative_to(tmp_path)):
            del sys.modules[name]


@pytest.mark.usefixtures("clean")
@pytest.mark.filterwarnings("ignore:.isinstance.treespec, LeafSpec.. is deprecated:FutureWarning")  # torch's exporter
@pytest.mark.filterwarnings("ignore:.* measured latencies vary:UserWarning")  # other programs run
@pytest.mark.filterwarnings("ignore:The ..noload.. loader strategy:DeprecationWarning")  # MLflow's use of SQLAlchemy
@pytest.mark.filterwarnings("ignore:.*dataloader' does not have many workers")  # where there are many cores
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_and_prints_what_the_page_says(page: Path) -> None:
    run_page(page)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    for path, anchor in links_of(page):
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page.name} links to {path}, which does not exist"
        if anchor:
            assert anchor in anchors_of(target), f"{page.name} links to {path}#{anchor}, and there is no such heading"


@pytest.mark.parametrize("module", ["mutorch", *MODULES])
def test_the_examples_in_the_docstrings_of_a_module_run(module: str) -> None:
    importlib.import_module(module)
    finder = doctest.DocTestFinder(exclude_empty=True)
    for test in finder.find(sys.modules[module], module):
        report: list[str] = []
        runner = doctest.DocTestRunner(optionflags=OPTIONS, verbose=False)
        runner.run(test, out=report.append)
        assert runner.failures == 0, "".join(report)


def test_the_extras_that_doctor_shows_are_those_of_the_project() -> None:
    extras = {
        name: tuple(
            requirement.partition(">=")[0].partition("[")[0].replace("-", "_")
            for requirement in requirements
            if not requirement.startswith("mutorch[")
        )
        for name, requirements in PROJECT["optional-dependencies"].items()
        if name not in ("demo", "all", "dev", "zoo")
    }
    assert extras == EXTRAS


def test_importing_mutorch_imports_no_library_of_an_extra() -> None:
    code = "import sys, json, mutorch; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = set(json.loads(done.stdout))
    assert "mutorch" in imported
    assert not imported & {"mlflow", *(module for modules in EXTRAS.values() for module in modules)}
