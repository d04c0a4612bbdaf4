"""The benchmarks: `nox -s bench`, or `PYTHONPATH=tests python -m bench`.

What they mean and what they showed is in docs/benchmarks.md.
"""
