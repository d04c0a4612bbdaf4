"""The GitHub workflows keep up with the project; what zizmor checks is not said twice."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
MATRIX = re.compile(r"^ +session: \[(.*)\]$", re.MULTILINE)
JOB = re.compile(r"^  (?=\w[\w-]*:$)", re.MULTILINE)
CLASSIFIER = "Programming Language :: Python :: 3."


def text(path: Path) -> str:
    """A workflow without its comments."""
    return re.sub(r"(^| )#.*", "", path.read_text("utf-8"))


ALL = "\n".join(map(text, WORKFLOWS))


def sessions() -> set[str]:
    """The names of the nox sessions."""
    tree = ast.parse((ROOT / "noxfile.py").read_text("utf-8"))
    return {
        node.name
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any(ast.unparse(one).startswith("nox.session") for one in node.decorator_list)
    }


def supported() -> list[str]:
    """The Pythons that the classifiers name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return [
        "3." + one.removeprefix(CLASSIFIER)
        for one in project["classifiers"]
        if one.startswith(CLASSIFIER)
    ]


def test_every_session_that_a_workflow_runs_exists() -> None:
    """Named in a command or in a matrix, it is one of noxfile.py."""
    named = re.findall(r"nox [^\n]*-s ([\w.-]+)", ALL) + ", ".join(MATRIX.findall(ALL)).split(", ")

    assert len(named) > 5
    assert {re.sub(r"-3\.\d+$", "", name) for name in named} <= sessions()


def test_workflows_name_the_oldest_and_the_newest_python() -> None:
    """All between them are read from the classifiers; one that was added moves these, too."""
    assert {supported()[0], supported()[-1]} == set(re.findall(r"\b3\.\d+\b", ALL))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_every_job_has_a_time_limit(path: Path) -> None:
    """None may run for the six hours that GitHub gives it; a called workflow has its own."""
    jobs = JOB.split(text(path).partition("\njobs:\n")[2])[1:]

    assert jobs
    for job in jobs:
        assert "    timeout-minutes: " in job or "    uses: $/" in job, job
