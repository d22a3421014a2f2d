"""``python -m tests.fuzz``: hypothesis, then atheris where it is installed, 100,000 inputs and more each."""

import os
import subprocess
import sys
import time
from importlib.util import find_spec

import pytest

from tests.fuzz.responses import print_tally

EXAMPLES = 9000  # for each of the tests, of which there are 13

os.environ.setdefault("CFBILLING_FUZZ_EXAMPLES", str(EXAMPLES))
began = time.monotonic()
failed = pytest.main(["--quiet", "--timeout", "0", "tests/api/test_fuzz.py", *sys.argv[1:]])
print_tally("hypothesis", time.monotonic() - began)
if failed:
    sys.exit(failed)
if find_spec("atheris") is None:
    print("atheris is not installed here: no coverage-guided fuzzing.")
    sys.exit()
sys.exit(subprocess.run([sys.executable, "-m", "tests.fuzz.coverage_guided"], check=False).returncode)
