from hypothesis import settings

# The same examples in every run, on any machine: a failure is a fact about the code.
settings.register_profile("mutorch", derandomize=True, deadline=None, max_examples=60, database=None)
# Many others, new in every run: pytest tests/channels/test_random_networks.py --hypothesis-profile=thorough
settings.register_profile("thorough", deadline=None, max_examples=1000, database=None)
settings.load_profile("mutorch")
