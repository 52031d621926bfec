"""What is installed, and what that turns on."""

import importlib.metadata
import platform

import torch

import mutorch

EXTRAS = {
    "cli": ("typer", "rich"),
    "train": ("lightning_fabric",),
    "report": ("matplotlib", "jinja2"),
    "onnx": ("onnx", "onnxscript", "onnxruntime"),
    "workers": ("cloudpickle",),
    "optuna": ("optuna", "cmaes"),
    "postgres": ("psycopg",),
    "ray": ("ray",),
    "tensorboard": ("tensorboard",),
    "mlflow": ("mlflow_skinny", "sqlalchemy", "alembic"),
    "lightning": ("lightning",),
    "transformers": ("transformers", "accelerate"),
}
"""Extra to the modules that it needs; kept equal to pyproject.toml by a test."""
_USES = {
    "cli": "the mutorch command",
    "train": "mutorch.training.fit",
    "report": "HTML reports",
    "onnx": "mutorch.to_onnx",
    "workers": "worker processes where nothing can be forked, and for functions that pickle cannot send",
    "optuna": "Optuna's samplers and storages",
    "postgres": "a search that several machines share through PostgreSQL",
    "ray": "evaluation on a cluster",
    "tensorboard": "mutorch.reporting.TensorBoardLogger",
    "mlflow": "mutorch.reporting.MLflowLogger",
    "lightning": "mutorch.integrations.lightning",
    "transformers": "mutorch.integrations.transformers",
}


def diagnose() -> str:
    """Versions, devices and extras, a line each."""
    lines = [
        f"mutorch {mutorch.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}, {platform.system()} {platform.machine()}",
        f"{'cpu':<12} on: {torch.get_num_threads()} threads",
    ]
    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count()))
        lines.append(f"{'cuda':<12} on: {names}")
    else:
        why = "this torch is built without CUDA" if torch.version.cuda is None else "torch finds no device or driver"
        lines.append(f"{'cuda':<12} off: {why}")
    for extra, modules in EXTRAS.items():
        found = {module: _version(module) for module in modules}
        missing = [module for module, version in found.items() if version is None]
        if missing:
            lines.append(
                f'{extra:<12} off: {", ".join(missing)} not installed; for {_USES[extra]}: pip install "mutorch[{extra}]"'
            )
        else:
            lines.append(f"{extra:<12} on: {', '.join(f'{module} {version}' for module, version in found.items())}")
    return "\n".join(lines)


def _version(module: str) -> str | None:
    try:
        return importlib.metadata.version(module.replace("_", "-"))
    except importlib.metadata.PackageNotFoundError:
        return None
