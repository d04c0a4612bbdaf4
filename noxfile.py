"""What is checked, and how: `nox` runs tests, typing and lint; `nox -l` lists all sessions.

`nox -s tests -- -k budget` hands what follows the dashes to pytest. Of the supported Pythons
those that are installed are used.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import nox
from nox.command import CommandFailed

nox.needs_version = ">=2025.10.14"
nox.options.sessions = ["tests", "typing", "lint"]
nox.options.error_on_missing_interpreters = False
nox.options.download_python = "never"

PROJECT = nox.project.load_toml("pyproject.toml")
SUPPORTED = list(nox.project.python_versions(PROJECT))
# Tested in the workflows, and not yet promised: the classifiers follow once the suite has passed.
UPCOMING = ["3.14"]
CURRENT = f"{sys.version_info.major}.{sys.version_info.minor}"

# More processes than cores: many tests wait for sockets and other processes.
PARALLEL = ("-n", "4", "--dist", "worksteal")

# Only for the benchmarks: other limiters, to be measured beside ours.
LIMITERS = ("aiolimiter", "limits", "pyrate-limiter")


def _works(python: str) -> bool:
    """Whether this Python is installed; pyenv has names for many that are not."""
    path = shutil.which(f"python{python}")
    if path is None:
        return False
    return subprocess.call([path, "-c", ""], stderr=subprocess.DEVNULL) == 0  # noqa: S603


def _pythons() -> list[str]:
    """The supported Pythons; where none is installed, the one that runs nox."""
    if CURRENT in SUPPORTED or any(map(_works, SUPPORTED)):
        return SUPPORTED
    return [CURRENT]


def _group(name: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, name))


def _floors() -> list[str]:
    """Our own dependencies in the lowest versions that we say we work with."""
    project = PROJECT["project"]
    ours = sum(project["optional-dependencies"].values(), project["dependencies"])
    return [re.sub(r">=\s*", "==", dependency) for dependency in ours]


def _run_tests(session: nox.Session, *arguments: str) -> None:
    """Run tests, then those that failed once more, one by one.

    Beside four others on a busy machine a test can miss a timeout. A defect fails alone, too.
    """
    # Not in `create_tmp()`, which would put the folders of all tests into the checkout.
    cache = Path(session.virtualenv.location, "pytest-cache").resolve()
    shutil.rmtree(cache, ignore_errors=True)
    # Not `python -m pytest`, which would put the checkout before the wheel.
    command = ("pytest", "-o", f"cache_dir={cache}")
    try:
        session.run(*command, *arguments)
    except CommandFailed:
        if not (cache / "v" / "cache" / "lastfailed").exists():
            raise
        session.warn("Failed beside other tests; each is run again, alone.")
        session.run(*command, *(one for one in arguments if one not in PARALLEL), "--last-failed")


@nox.session(python=[*_pythons(), *UPCOMING])
def tests(session: nox.Session) -> None:
    """The test suite against the built wheel."""
    session.install(".[cli]", *_group("test"))
    _run_tests(session, *(session.posargs or PARALLEL))


@nox.session
def quick(session: nox.Session) -> None:
    """A few tests on the Python that runs nox: `nox -R -s quick -- -k retry`."""
    session.install("-e", ".[cli]", *_group("test"))
    session.run("pytest", *session.posargs)


# Python 3.11 loses track of the lines behind a coroutine that was cancelled.
@nox.session(python=SUPPORTED[-1])
def coverage(session: nox.Session) -> None:
    """Lines and branches of the package that the test suite reaches."""
    session.install(".[cli]", *_group("coverage"))
    session.env["COVERAGE_FILE"] = str(Path(session.create_tmp(), "data").resolve())
    session.run("coverage", "erase")
    session.run("coverage", "run", "-m", "pytest", *(session.posargs or PARALLEL))
    session.run("coverage", "combine", "-q")
    session.run("coverage", "report")


@nox.session(python=SUPPORTED[0])
def lowest(session: nox.Session) -> None:
    """The test suite with the oldest dependencies on the oldest Python."""
    # The SDK must match the API; without its version pip searches for minutes.
    sdk = [floor.replace("-api", "-sdk") for floor in _floors() if "opentelemetry-api" in floor]
    session.install(".[cli]", *_floors(), *sdk, *_group("test"))
    _run_tests(session, *(session.posargs or PARALLEL))


@nox.session
def nightly(session: nox.Session) -> None:
    """The test suite with pre-releases of all dependencies, on the Python that runs nox."""
    session.install("--pre", "--upgrade", ".[cli]", *_group("test"))
    _run_tests(session, *(session.posargs or PARALLEL))


@nox.session
def typing(session: nox.Session) -> None:
    """Mypy and pyright, both strict."""
    session.install("-e", ".[cli]", *_group("typing"))
    session.run("mypy")
    session.run("pyright")
    # Every public name has a type that each type checker reads in the same way.
    session.run("pyright", "--verifytypes", "aifaceswap", "--ignoreexternal")


@nox.session
def frameworks(session: nox.Session) -> None:
    """Tests inside FastAPI, Litestar, Django and Flask; with a complete S3; and the tutorials."""
    session.install(".[cli,otel]", *_group("frameworks"))
    _run_tests(
        session,
        "tests/process/apps",
        "tests/process/examples",
        "tests/unit/files",
        "tests/unit/webhooks",
        "tests/docs/test_tutorials.py",
        *(session.posargs or PARALLEL),
    )
    # The pages' apps, as their readers' type checkers see them.
    folder = session.create_tmp()
    session.run("python", "tests/typing/pages.py", folder)
    session.run("mypy", "--strict", folder)
    session.run("pyright", folder)


@nox.session
def lint(session: nox.Session) -> None:
    """Format, style, spelling, wording and the import contracts."""
    session.install(*_group("lint"))
    session.run("ruff", "format", "--check")
    session.run("ruff", "check")
    session.run("codespell")
    session.run("lint-imports", "--no-cache")
    session.run("python", "tests/support/write_sync.py", "--check")
    session.run("python", "tests/lint/language.py")


@nox.session
def sync(session: nox.Session) -> None:
    """Write the signatures and docstrings of the blocking client from `client.py`."""
    session.install(*_group("lint"))
    session.run("python", "tests/support/write_sync.py")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as HTML, in docs/_build, looked at in a browser where there is one."""
    session.install(".[cli]", *_group("docs"), *_group("test"))
    session.run("sphinx-build", "-W", "-n", "docs", "docs/_build", *session.posargs)
    # The pages' examples need nothing of this session: they are among `tests`.
    _run_tests(session, "tests/docs/test_plots.py", "tests/docs/test_site.py")


@nox.session
def build(session: nox.Session) -> None:
    """Wheel and sdist in dist/, in an environment that hashes lock; nothing is tested in it."""
    session.install("--require-hashes", "--only-binary=:all:", "-r", ".github/locks/build.txt")
    shutil.rmtree("dist", ignore_errors=True)
    # With the backend installed above: a build that needs no network can be repeated.
    session.run("python", "-m", "build", "--no-isolation", env={"SOURCE_DATE_EPOCH": None})


@nox.session
def distributions(session: nox.Session) -> None:
    """What is in dist/, fit for upload: its contents, and the same bytes from another build."""
    session.install(*_group("release"))
    # The backend's version is in the metadata: the second build needs the same one.
    session.install("--require-hashes", "-r", ".github/locks/build.txt")
    built = sorted(map(str, Path("dist").resolve().iterdir()))
    session.run("twine", "check", "--strict", *built)
    session.install(f"{built[0]}[cli]")
    env = {"AIFACESWAP_DIST": str(Path("dist").resolve())}
    session.run("pytest", "tests/release", *session.posargs, env=env)


@nox.session
def sbom(session: nox.Session) -> None:
    """A CycloneDX bill of materials of the wheel in dist/ with its dependencies, in sbom/."""
    session.install("--require-hashes", "--only-binary=:all:", "-r", ".github/locks/sbom.txt")
    (wheel,) = Path("dist").resolve().glob("*.whl")
    product = Path(session.create_tmp(), "product").resolve()
    session.run("python", "-m", "venv", "--clear", str(product))
    python = str(product / "bin" / "python")
    session.run(python, "-m", "pip", "install", "--quiet", f"{wheel}[cli,otel]", external=True)
    session.run(python, "-m", "pip", "uninstall", "--quiet", "--yes", "pip", external=True)
    Path("sbom").mkdir(exist_ok=True)
    output = f"sbom/{wheel.name.split('-py3')[0]}.cdx.json"
    session.run(
        *("cyclonedx-py", "environment", "--pyproject", "pyproject.toml", "--mc-type", "library"),
        *("--output-reproducible", "--output-file", output, str(product)),
    )


@nox.session
def lock(session: nox.Session) -> None:
    """New versions and hashes of what builds a release."""
    session.install("uv")
    for name in ("build", "sbom"):
        session.run(
            *("uv", "pip", "compile", "--quiet", "--upgrade", "--universal", "--no-header"),
            *("--python-version", SUPPORTED[0], "--generate-hashes", f".github/locks/{name}.in"),
            *("--output-file", f".github/locks/{name}.txt"),
        )


@nox.session
def workflows(session: nox.Session) -> None:
    """The security of the GitHub workflows."""
    session.install(*_group("workflows"))
    session.run("zizmor", "--offline", "--persona=pedantic", "--strict-collection", ".github")


@nox.session
def crashes(session: nox.Session) -> None:
    """Bulk runs killed at 200 random moments, of which the tests try a few; killed workers."""
    session.install(".[cli,files,redis]", *_group("workers"))
    env = {"AIFACESWAP_KILLS": "200", "AIFACESWAP_WORKER_ROWS": "60"}
    env |= {"AIFACESWAP_SLOT_ROWS": "80", "AIFACESWAP_FILE_KILLS": "5"}
    files = ("bulk_crashes.py", "bulk_files.py", "worker_crashes.py", "slots.py")
    session.run(
        "pytest",
        *(f"tests/process/test_{file}" for file in files),
        "tests/process/examples/test_workers.py",
        "--timeout=1800",
        *session.posargs,
        env=env,
    )


@nox.session
def money(session: nox.Session) -> None:
    """Every fault at every moment, in every way: what is paid (`-- calls`, `-- bulk`, or both)."""
    session.install(".[cli]", *_group("test"))
    files = [f"tests/money/test_{name}.py" for name in session.posargs or ("calls", "bulk")]
    env = {"AIFACESWAP_MONEY": "all"}
    session.run("pytest", *files, "-s", "--timeout=1800", env=env)


@nox.session
def conformance(session: nox.Session) -> None:
    """The facts of the API and its description, against the emulator: docs/conformance.md."""
    session.install(".[cli]", *_group("conformance"))
    env = {"AIFACESWAP_EXAMPLES": "300"}
    session.run("pytest", "tests/conformance", *session.posargs, env=env)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Ten million random webhook deliveries; the tests try a few thousand."""
    session.install(".")
    session.run("python", "tests/support/webhook_fuzz.py", *(session.posargs or ["10000000"]))


@nox.session
def soak(session: nox.Session) -> None:
    """A web app for 24 simulated hours; what it leaves behind: docs/guides/waiting.md."""
    session.install(".[cli]", *_group("bench"))
    paths = {"PYTHONPATH": "tests", "PYTHONSAFEPATH": "1"}
    session.run("python", "-m", "soak", *session.posargs, env=paths)


@nox.session
def bench(session: nox.Session) -> None:
    """The benchmarks beside other clients: `nox -s bench -- --help`."""
    session.install(".[cli,redis]", *_group("bench"), *LIMITERS)
    # A safe path leaves out the checkout: what is measured is the wheel, compiled.
    paths = {"PYTHONPATH": "tests", "PYTHONSAFEPATH": "1"}
    session.run("python", "-m", "bench", *session.posargs, env=paths)
