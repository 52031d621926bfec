"""Build every model of the zoo and run it once: `python -m benchmarks.zoo [torchvision] [timm] [transformers] [--large]`."""

import gc
import sys
import time

import torch

from benchmarks.zoo import timm_models, torchvision_models, transformers_models

SOURCES = {
    "torchvision": torchvision_models.entries,
    "timm": timm_models.entries,
    "transformers": transformers_models.entries,
}


def main(arguments: list[str]) -> None:
    """Print parameters and seconds of each model; exit with an error if one does not run."""
    torch.set_num_threads(1)
    sources = [name for name in arguments if name != "--large"] or list(SOURCES)
    failed = []
    for source in sources:
        if source not in SOURCES:
            sys.exit(f"no source {source!r}; there are: {', '.join(SOURCES)}")
        for entry in SOURCES[source]().values():
            if entry.large and "--large" not in arguments:
                continue
            start = time.perf_counter()
            try:
                model = entry.make()
                built = time.perf_counter()
                with torch.inference_mode():
                    entry.run(model)
            except Exception as error:  # the others are still to be tried
                failed.append(entry.name)
                print(f"{entry.name:<56} {type(error).__name__}: {error}", flush=True)
                continue
            millions = sum(parameter.numel() for parameter in model.parameters()) / 1e6
            seconds = f"built in {built - start:5.1f} s, ran in {time.perf_counter() - built:5.2f} s"
            print(f"{entry.name:<56} {millions:7.2f}M  {seconds}", flush=True)
            del model
            gc.collect()
    sys.exit(f"do not run: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main(sys.argv[1:])
