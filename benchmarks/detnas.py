"""What a backbone search for detection finds, on the generated task: `examples/digits_detnas.yaml` with one random backbone more.

The winner is the best on validation data of the two best of the search, each trained alone; beside it four random backbones within
the same budget, trained equally long, the best of them chosen by validation data too. Everything is trained on the detection task
from scratch. One seed, so differences of a point or two say nothing.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from mutorch.recipes import DetNASRun, DetNASSettings, Row
from mutorch.registry import load_config

EXAMPLE = Path(__file__).parent.parent / "examples" / "digits_detnas.yaml"
NUM_RANDOM = 4


def run() -> dict[str, float]:
    """mAP in percent, averaged over the overlaps 0.50 to 0.95, of test images where nothing else is said, and what it took."""
    torch.set_num_threads(1)
    settings = replace(DetNASSettings.from_config(load_config(EXAMPLE)), num_random=NUM_RANDOM)
    with tempfile.TemporaryDirectory() as folder:
        return _figures(settings, folder)


def _figures(settings: DetNASSettings, folder: str) -> dict[str, float]:
    clock, wall = [time.process_time()], time.perf_counter()
    search = DetNASRun(
        settings, folder, lambda stage, done, total, note: print(f"  {stage} {done}/{total} {note}", flush=True)
    )
    search.train_supernet()
    clock.append(time.process_time())
    history = search.search()
    chosen = search.chosen(history)
    clock.append(time.process_time())
    scores = {role: [search.scores(one) for one in found] for role, found in chosen.items()}
    clock.append(time.process_time())
    best = {role: max(range(len(found)), key=lambda n: found[n][0]) for role, found in scores.items()}
    architecture, winner = chosen["best"][best["best"]], scores["best"][best["best"]]
    costs = search.table(architecture)
    search.export(Row("winner", architecture, *winner, costs.macs, costs.params, 0.0))
    model = search.trained_subnet(architecture)
    tests = {role: [test for _, test in found] for role, found in scores.items()}
    return {
        "winner": 100 * winner[1],
        "winner, at an overlap of 0.5": 100 * search.evaluate(model, search.data.loader("test", 512))["mAP50"],
        "winner, validation": 100 * winner[0],
        "winner, with the supernet's weights, validation": 100 * history.best.score,
        f"mean of the {settings.num_retrained} best of the search": 100 * float(np.mean(tests["best"])),
        f"best of {NUM_RANDOM} random within the budget": 100 * scores["random"][best["random"]][1],
        f"best of {NUM_RANDOM} random within the budget, validation": 100 * scores["random"][best["random"]][0],
        f"mean of {NUM_RANDOM} random within the budget": 100 * float(np.mean(tests["random"])),
        f"deviation of {NUM_RANDOM} random within the budget": 100 * float(np.std(tests["random"], ddof=1)),
        "largest": 100 * tests["largest"][0],
        "smallest": 100 * tests["smallest"][0],
        "winner, thousand macs": costs.macs / 1e3,
        "largest, thousand macs": search.table(search.table.largest()).macs / 1e3,
        "smallest, thousand macs": search.table(search.table.cheapest()).macs / 1e3,
        "seconds of CPU: supernet": clock[1] - clock[0],
        f"seconds of CPU: scoring {len(history)} subnets": clock[2] - clock[1],
        f"seconds of CPU: training {sum(map(len, chosen.values()))} subnets alone": clock[3] - clock[2],
        "seconds, all, on a machine that others used too": time.perf_counter() - wall,
    }
