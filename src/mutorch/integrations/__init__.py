"""A supernet inside a trainer that you have: `integrations.lightning` and `integrations.transformers`.

Each is a module of its own, because each needs a library that `import mutorch` does not load.
"""

from .supernet_steps import Sampler as Sampler
from .supernet_steps import SupernetSteps as SupernetSteps
