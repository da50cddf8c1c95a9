from hypothesis import HealthCheck, settings

from tests.dispositions import catch_ignored

# Machines are shared: a slow moment is no failure. Examples are few enough to run always, and the
# same ones, until a test is another; the search for new ones is `--hypothesis-profile=long`.
settings.register_profile("enclave-llm", deadline=None, max_examples=60, derandomize=True)
settings.register_profile(
    "long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("enclave-llm")
catch_ignored()
