"""The command line: parses, calls the function of the same name, renders. Errors are one sentence, exit code 2.

options.py   what several commands can be given
opening.py   from options to networks and images
showing.py   from results to the terminal
and a file for each command.
"""

from __future__ import annotations

import sys
from typing import Annotated, Any, NoReturn

import typer
from rich.text import Text

from slimseg.cli.demonstrating import demo
from slimseg.cli.diagnosing import diagnose
from slimseg.cli.evaluating import evaluate
from slimseg.cli.exporting import export
from slimseg.cli.processing import processors
from slimseg.cli.profiling import profile
from slimseg.cli.quantising import quantize
from slimseg.cli.slimming import slim
from slimseg.console import PlainConsole, as_options
from slimseg.errors import SlimsegError, UserError
from slimseg.stopping import listening

app = typer.Typer(
    name="slimseg",
    help="Make trained semantic-segmentation networks small and fast on phones, with proof.",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_state = {"debug": False}
# click's class; by version, typer carries click inside or beside itself
_UsageError: Any = typer.BadParameter.__mro__[1]


@app.callback()
def common(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    """Options of every command."""
    _state["debug"] = debug


for _command_function in (profile, diagnose, slim, quantize, evaluate, export, processors, demo):
    app.command()(_command_function)


def main() -> NoReturn:
    """Run the command line; an error or a signal becomes one sentence on standard error."""
    try:
        with listening():
            code = app(sys.argv[1:] or ["--help"], standalone_mode=False)
    except _UsageError as error:
        _fail(f"{error.format_message().rstrip('.')}: see {_command(error)} --help", 2)
    except SlimsegError as error:
        if _state["debug"]:
            raise
        _fail(str(error), 2 if isinstance(error, UserError) else 1)
    except OSError as error:  # a disk that fills up, a folder that disappears
        if _state["debug"]:
            raise
        _fail(f"{error.filename or 'a file'} cannot be read or written: {error.strerror or error}", 2)
    sys.exit(code or 0)


def _command(error: Any) -> str:
    return str(error.ctx.command_path) if error.ctx else "slimseg"


def _fail(message: str, code: int) -> NoReturn:
    line = as_options(" ".join(message.split()))
    PlainConsole(stderr=True).print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)
    sys.exit(code)
