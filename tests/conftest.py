from hypothesis import settings

# The same examples in every run, on any machine: a failure is a fact about the code.
settings.register_profile("mutorch", derandomize=True, deadline=None, max_examples=60, database=None)
settings.load_profile("mutorch")
