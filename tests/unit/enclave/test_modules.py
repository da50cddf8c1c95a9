import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parents[2] / "golden" / "enclave_modules.txt"
PROGRAM = """
import sys
import app.enclave.main
import app.enclave.kms.transport  # while the model loads
ours = ("app", "infra", "image", "ops", "local", "tests")
print(*sorted(name for name in sys.modules if name.partition(".")[0] in ours), sep="\\n")
"""


def test_modules_of_the_enclave() -> None:
    """
    The enclave loads exactly the listed modules of ours: these are what its image holds, what
    its measurement covers, and what an auditor reads.
    """
    loaded = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=110
    )
    assert loaded.stdout == GOLDEN.read_text()
