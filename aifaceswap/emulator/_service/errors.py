"""Errors of the API as values, and the exception that carries one to the response."""

from __future__ import annotations

import attrs


@attrs.frozen
class Problem:
    """One error response.

    Attributes:
        status: The HTTP status.
        code: What callers branch on.
        message: For people; names the field where there is one.
        headers: Headers of this response alone, such as `Retry-After`.
    """

    status: int
    code: str
    message: str
    headers: tuple[tuple[str, str], ...] = ()


class Rejected(Exception):  # noqa: N818 (it is a response, not a fault of ours)
    """Ends the handling of a request with a problem."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def invalid(message: str) -> Rejected:
    """A `validation_error`; `message` starts with the field's name where there is one."""
    return Rejected(Problem(400, "validation_error", message))


def not_found(message: str = "There is nothing here.") -> Rejected:
    """A 404."""
    return Rejected(Problem(404, "not_found", message))


def method_not_allowed(method: str, allowed: list[str]) -> Rejected:
    """A 405 that says which methods are allowed."""
    message = f"{method[:20]} is not allowed here; use {' or '.join(allowed)}."
    return Rejected(Problem(405, "method_not_allowed", message, (("Allow", ", ".join(allowed)),)))
