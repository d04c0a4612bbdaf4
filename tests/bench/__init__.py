"""The benchmarks: `nox -s bench`, or `PYTHONPATH=tests python -P -m bench`.

docs/benchmarks.md explains them and shows their results.
"""

import os
import sys

# The package as another commit has it; see `processes`.
if _other := os.environ.get("BENCH_PACKAGE"):
    sys.path.insert(0, _other)
