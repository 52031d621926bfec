"""Public models that coverage is measured on: torchvision, timm, transformers, with random weights and small inputs.

Nothing is downloaded but the libraries, which come with an extra, preferably in an environment of their own:

    pip install -e ".[zoo]"

Beside a CPU build of torch, the torchvision of PyPI comes without its dependencies, or pip may replace torch by the build
that it was made for. Its compiled operators then do not load, and `stubs.py` stands in for them:

    pip install torch==2.13.0 numpy pillow PyYAML safetensors huggingface_hub transformers
    pip install --no-deps torchvision==0.28.0 timm
    pip install --no-deps -e .

The release of torchvision has to be the one made for the release of torch (0.28 for 2.13). Last run whole with timm 1.0.31
and transformers 5.23: all 206 models.

`python -m benchmarks.zoo [torchvision] [timm] [transformers]` builds every model and runs it once; `--large` includes those
of more than 100M parameters.
"""
