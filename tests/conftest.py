from hypothesis import settings

from tests.dispositions import catch_ignored

# Machines are shared: a slow moment is no failure, and examples are few enough to run always.
settings.register_profile("enclave-llm", deadline=None, max_examples=60)
settings.load_profile("enclave-llm")
catch_ignored()
