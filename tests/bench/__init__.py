"""The benchmarks: `nox -s bench`, or `PYTHONPATH=tests python -P -m bench`.

What they mean and what they showed is in docs/benchmarks.md.
"""
