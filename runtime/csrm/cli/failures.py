"""Typed errors -> one line on stderr and exit status 2, for every command.

Not: lines of input that fail, which `csrm score` reports in its output with exit status 1.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import IO, Any

import click

from csrm.errors import Error


def describe(error: Error) -> str:
    """One line: `policy.yaml:7:5: BadConfig: message`, or less where no position is known."""
    place = [str(part) for part in (error.path, error.line, error.column) if part is not None]
    if error.path is None and error.line is not None:
        place[0] = f"line {error.line}"
    return ": ".join(filter(None, (":".join(place), type(error).__name__, error.message)))


class UnusableCall(click.ClickException):
    """An Error that ends the command."""

    exit_code = 2

    def __init__(self, error: Error) -> None:
        super().__init__(describe(error))

    def show(self, file: IO[Any] | None = None) -> None:
        """Prints the line without click's "Error: " before it."""
        click.echo(self.format_message(), err=file is None, file=file)


class MissingExtra(click.ClickException):
    """A command whose optional packages are not installed."""

    exit_code = 2


class TypedErrorGroup(click.Group):
    """A command group that reports csrm.Error as UnusableCall."""

    def invoke(self, ctx: click.Context) -> object:
        """Runs the command. Errors: UnusableCall in place of csrm.Error."""
        try:
            return super().invoke(ctx)
        except Error as error:
            raise UnusableCall(error) from error


def import_extra(module: str, extra: str) -> ModuleType:
    """`module`, imported now. Errors: MissingExtra that names the extra to install."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        missing = error.name or "a package"
        if missing.split(".")[0] == "csrm":
            raise MissingExtra(f"this build of csrm has no {missing}") from error
        raise MissingExtra(
            f"this command needs {missing}; install it with: pip install 'csrm[{extra}]'"
        ) from error
