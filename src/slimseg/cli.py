"""The command line: parses, calls the function of the same name, renders. Errors are one sentence, exit code 2."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.text import Text

from slimseg.console import PlainConsole
from slimseg.errors import SlimsegError, UnknownOperator, UserError
from slimseg.stopping import keeping, listening

app = typer.Typer(
    name="slimseg",
    help="Make trained semantic-segmentation networks small and fast on phones, with proof.",
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
_state = {"debug": False}
BUDGET_MISSED = 3  # exit code: the command did its work, and the result is outside the budget
_IO: dict[str, Literal["float32", "int8", "image"]] = {"float": "float32", "int8": "int8", "uint8-image": "image"}
# click's class; by version, typer carries click inside or beside itself
_UsageError: Any = typer.BadParameter.__mro__[1]

MODEL = typer.Argument(
    help="A .tflite, .onnx, .keras, .h5 or .pt2 file, file.py:function or package.module:function.", metavar="MODEL"
)
Model = Annotated[str, MODEL]
Data = Annotated[Path, typer.Option(help="Folder with train/val x images/masks, or images alone.")]
Foreground = Annotated[
    str | None,
    typer.Option(
        help="In masks of two classes, the value of the second; none: values are class indices, 255 ignored. Default: "
        "255 where masks have only 0 and 255."
    ),
]
Weights = Annotated[Path | None, typer.Option(help=".safetensors or .pth for file.py:function; never unpickled.")]
Size = Annotated[str | None, typer.Option(help="Input size HEIGHTxWIDTH; a .pt2 knows its own.")]
Mean = Annotated[str | None, typer.Option(help="Subtracted from each byte: one number or three, 127 or 124,116,104.")]
Std = Annotated[str | None, typer.Option(help="Divides what is left: one number or three, in bytes, too.")]
Order = Annotated[str | None, typer.Option(help="rgb or bgr.")]
Output = Annotated[str | None, typer.Option("--output", help="Of several outputs, the one to use: name or number.")]
Kind = Annotated[str | None, typer.Option(help="What the model gives: logits, probabilities or mask.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON instead of tables.")]
On = Annotated[str | None, typer.Option("--runtime", help="litert or ncnn. Default: the file's, else litert.")]
Threads = Annotated[int, typer.Option(min=1, max=64, help="CPU threads of the runtime.")]
Anyway = Annotated[bool, typer.Option("--anyway", help="Export a result outside its budget, too; its card says so.")]
Verbose = Annotated[bool, typer.Option("--verbose", help="Show every site, variant and refused rewrite.")]


@app.callback()
def common(debug: Annotated[bool, typer.Option(help="Show the traceback of an error.")] = False) -> None:
    """Options of every command."""
    _state["debug"] = debug


@app.command()
def profile(
    model: Model,
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    runtime: On = None,
    threads: Threads = 1,
    runs: Annotated[int, typer.Option(min=1, max=1000, help="Profiled inferences.")] = 30,
    top: Annotated[int, typer.Option(min=1, help="Layers to show.")] = 15,
    statistics: Annotated[bool, typer.Option("--statistics", help="Every layer: first, average, min, max.")] = False,
    csv: Annotated[Path | None, typer.Option(help="Write every layer as a table, too.")] = None,
    trace: Annotated[Path | None, typer.Option(help="Write one run for chrome://tracing or Perfetto, too.")] = None,
    json: AsJson = False,
) -> None:
    """Where the time goes, layer by layer, on LiteRT or ncnn.

    Example:  slimseg profile network.tflite --csv layers.csv --trace trace.json

    On ncnn:  slimseg profile network.tflite --runtime ncnn
    """
    from slimseg.profile import profile as run
    from slimseg.report.profile_files import write_csv, write_trace
    from slimseg.report.terminal import show_profile
    from slimseg.runtimes.runtime import is_deployed, of

    on = _runtime(runtime)
    with _progress().console.status(f"profiling on {'ncnn' if on == 'ncnn' else 'LiteRT'}"):
        given = _given(locals())
        own = is_deployed(model) and on in (None, of(model).name)
        result = run(model if own else _load(**given), threads, runs, on)
    if csv is not None:
        write_csv(result, csv)
    if trace is not None:
        write_trace(result, trace)
    _show(result, json, lambda: show_profile(result, top=top, statistics=statistics))


@app.command()
def diagnose(
    model: Model,
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    precision: Annotated[str | None, typer.Option(help="Price edits in float32 or int8. Default: the file's.")] = None,
    runtime: On = None,
    threads: Threads = 1,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """What could be saved, where, and what it takes: every finding timed before and after.

    Example:  slimseg diagnose network.tflite
    """
    from slimseg.diagnose import diagnose as run
    from slimseg.report.terminal import show_diagnosis

    if precision not in (None, "float32", "int8"):
        raise UserError(f"--precision {precision!r} must be float32 or int8")
    if _runtime(runtime) == "ncnn":
        if precision == "int8":
            raise UserError("--precision int8 is LiteRT's: on ncnn networks are timed in float32")
        precision = "ncnn"
    try:
        source = _load(**_given(locals()), say_notes=False)
    except UnknownOperator:
        source = model  # a .tflite can still be timed
    result = run(source, precision, threads, _progress())  # type: ignore[arg-type]
    _show(result, json, lambda: show_diagnosis(result, verbose=verbose))


@app.command()
def slim(
    model: Model,
    out: Annotated[Path, typer.Option(help="New folder for the result, or that of a run that was stopped.")],
    data: Annotated[
        Path | None, typer.Option(help="Folder with train/val x images/masks, or images alone; --needs nothing: none.")
    ] = None,
    foreground: Foreground = None,
    max_size: Annotated[str | None, typer.Option(help="Of the deployed file: 4MB, 900kB.")] = None,
    min_speedup: Annotated[float | None, typer.Option(help="Over the float32 original.")] = None,
    max_drop: Annotated[float, typer.Option(help="Points of mIoU; without labels, percent of pixels changed.")] = 1.0,
    needs: Annotated[str, typer.Option(help="The most an edit may ask for: nothing, images or labels.")] = "labels",
    time_limit: Annotated[str, typer.Option(help="45m, 90s, 1h.")] = "45m",
    runtime: On = None,
    head: Annotated[str | None, typer.Option(help="Output: logits, probabilities or mask. Default: as it is.")] = None,
    to: Annotated[
        str | None, typer.Option(help="Export the result into OUT/export, too: tflite,coreml,ncnn. See export --help.")
    ] = None,
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    anyway: Anyway = False,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Make a network small and fast within a budget: edit, recover, quantise, prove.

    Example:  slimseg slim network.pt2 --data images/ --out run/ --mean 127 --std 128 --max-size 1MB --min-speedup 32

    Without data:  slimseg slim network.tflite --needs nothing --out run/

    Exit code 3: the result is there, but outside the budget; --to then exports it only with --anyway.
    """
    from slimseg.export import export as export_to
    from slimseg.exporting.targets import parse
    from slimseg.planning.budget import Budget, parse_size, parse_time
    from slimseg.report.export import show_export
    from slimseg.report.terminal import show_slim
    from slimseg.slim import slim as run

    budget = Budget(
        max_size_bytes=parse_size(max_size) if max_size else None,
        min_speedup=min_speedup,
        max_drop=max_drop,
        needs=needs,  # type: ignore[arg-type]
        time_limit_s=parse_time(time_limit),
        head=head,  # type: ignore[arg-type]
        runtime=_runtime(runtime) or "litert",
    )
    targets = parse(to) if to else ()  # a mistake in it is told before the work
    given, folder = _given(locals()), _images(data, foreground)
    result = run(_load(**given), folder, out, budget, seed, _progress())
    if not json:
        show_slim(result, verbose=verbose)
    exported = None
    try:
        if targets and (result.budget_met or anyway):
            with keeping(lambda: f"{out} holds the finished run: the same command goes on with its export."):
                exported = export_to(out, out / "export", targets, data=folder, anyway=anyway, progress=_progress())
        elif targets:
            _note("Not exported, as the result is outside its budget: slimseg export --anyway exports it all the same")
    finally:  # a network that was slimmed is told of, too, where it could not be exported
        if json:
            _print_json(replace(result, exported=exported))
    if exported and not json:
        show_export(exported)
    _exit_by_budget(result.budget_met)
    if exported and exported.failed:
        raise typer.Exit(1)


@app.command()
def quantize(
    model: Model,
    out: Annotated[Path, typer.Option(help="The .tflite to write.")],
    data: Annotated[
        Path | None,
        typer.Option("--data", "--images", help="Folder with train/val x images/masks, or images alone."),
    ] = None,
    foreground: Foreground = None,
    scheme: Annotated[str, typer.Option(help="float16, dynamic, weight-only, int8, int16x8, or auto.")] = "auto",
    io: Annotated[str, typer.Option(help="What the file takes: float, int8, or uint8-image for RGB bytes.")] = "float",
    ranges: Annotated[str, typer.Option(help="Of activations: mean, minmax, percentile, mse, or auto.")] = "auto",
    correct: Annotated[str, typer.Option(help="Before int8: none, equalise, bias, both, or auto.")] = "auto",
    keep_float: Annotated[
        str, typer.Option(help="Layers left in float32 by int8: none, LAYER,LAYER, or auto for what the budget needs.")
    ] = "auto",
    sensitivity: Annotated[bool, typer.Option("--sensitivity", help="What each layer suffers from 8 bits.")] = False,
    train: Annotated[str | None, typer.Option(help="Train in 8 bits that long, from the best int8 on: 10m.")] = None,
    max_drop: Annotated[float, typer.Option(help="Points of mIoU; without labels, percent of pixels changed.")] = 1.0,
    max_size: Annotated[str | None, typer.Option(help="Of the file: 4MB, 900kB.")] = None,
    calibration_images: Annotated[int, typer.Option(min=1, help="At most so many, spread over the folder.")] = 100,
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    threads: Threads = 1,
    verbose: Verbose = False,
    json: AsJson = False,
) -> None:
    """Quantisation without guessing: every scheme written, timed and judged; the best is kept.

    Example:  slimseg quantize network.tflite --data images/ --out network_int8.tflite

    With quantisation-aware training:  slimseg quantize network.tflite --data images/ --train 10m --out trained.tflite

    Exit code 3: the file is there, but outside the budget.
    """
    from slimseg.frontends import chosen_output
    from slimseg.planning.budget import Budget, parse_size, parse_time
    from slimseg.quantize import quantize as run
    from slimseg.report.quantisation import show_quantisation

    if io not in _IO:
        raise UserError(f"--io {io!r} must be one of {', '.join(_IO)}")
    budget = Budget(max_size_bytes=parse_size(max_size) if max_size else None, max_drop=max_drop)
    given = _given(locals())
    own_file = model.lower().endswith(".tflite") and input_size is None and weights is None
    own_file = own_file and chosen_output(model, output)[0] == 0  # LiteRT hands out the first
    source = model if own_file else _load(**given)
    description = _description(**given) if own_file else None
    result = run(
        source,
        out,
        _images(data, foreground),
        scheme,
        _IO[io],
        ranges,
        correct,  # type: ignore[arg-type]
        keep_float,
        sensitivity,
        parse_time(train) if train else 0.0,
        budget,
        calibration_images,
        description,
        threads,
        _progress(),
    )
    _show(result, json, lambda: show_quantisation(result, verbose=verbose))
    _exit_by_budget(result.budget_met)


@app.command()
def evaluate(
    model: Model,
    data: Data,
    foreground: Foreground = None,
    split: Annotated[str, typer.Option(help="val or train.")] = "val",
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    runtime: On = None,
    threads: Threads = 1,
    json: AsJson = False,
) -> None:
    """mIoU, IoU by class and pixel accuracy of the deployed file. Preprocessing is inside files that slimseg wrote.

    Example:  slimseg evaluate run/model.tflite --data images/
    """
    from slimseg.evaluate import evaluate as run
    from slimseg.report.terminal import show_evaluation
    from slimseg.runtimes.runtime import LITERT, is_deployed, of

    given = _given(locals())
    on = _runtime(runtime)
    if is_deployed(model) and on in (None, of(model).name):
        description = _description(**given) if of(model) is LITERT else None
        result = run(model, _images(data, foreground), split, description, threads, _progress(), output=output)
    else:
        result = run(_load(**given), _images(data, foreground), split, None, threads, _progress(), on)
    _show(result, json, lambda: show_evaluation(result))


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(help="A model file, file.py:function, or the folder of a run of slim.", metavar="MODEL")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files and their model card.")],
    to: Annotated[
        str,
        typer.Option(
            help="tflite, coreml, ncnn, with commas between; each perhaps with a form: tflite:float32|float16|int8, "
            "coreml:float16|float32|palettised|linear, ncnn:fp16|fp32."
        ),
    ] = "tflite,coreml,ncnn",
    data: Annotated[
        Path | None, typer.Option(help="Images, perhaps with masks, to compare on and to take int8 ranges from.")
    ] = None,
    foreground: Foreground = None,
    head: Annotated[str | None, typer.Option(help="Output: logits, probabilities or mask. Default: as it is.")] = None,
    images: Annotated[int, typer.Option(min=1, help="Images to compare masks on.")] = 20,
    coreml_sizes: Annotated[
        str | None, typer.Option(help="Further sizes HEIGHTxWIDTH,HEIGHTxWIDTH that the Core ML package takes.")
    ] = None,
    licence: Annotated[str | None, typer.Option(help="Of the weights, in a sentence, for card and files.")] = None,
    weights: Weights = None,
    input_size: Size = None,
    mean: Mean = None,
    std: Std = None,
    channel_order: Order = None,
    output_kind: Kind = None,
    output: Output = None,
    threads: Threads = 1,
    anyway: Anyway = False,
    json: AsJson = False,
) -> None:
    """One network as files for LiteRT and MediaPipe Tasks, Core ML and ncnn: each compared with it, with a model card.

    Example:  slimseg export run/ --to tflite,coreml,ncnn --data images/ --out app/
    """
    from slimseg.export import export as run
    from slimseg.report.export import show_export
    from slimseg.report.model_card import NO_LICENCE

    given = _given(locals())
    source = model if Path(model).is_dir() else _load(**given)
    sizes = [_size(each, "--coreml-sizes") for each in coreml_sizes.split(",")] if coreml_sizes else []
    result = run(
        source,
        out,
        to,
        head,  # type: ignore[arg-type]
        _images(data, foreground),
        images=images,
        licence=licence or NO_LICENCE,
        sizes=sizes,
        threads=threads,
        anyway=anyway,
        progress=_progress(),
    )
    _show(result, json, lambda: show_export(result))
    if result.failed:
        raise typer.Exit(1)


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="New folder for the result.")] = Path("runs/demo"),
    seed: Annotated[int, typer.Option(help="Of the scenes and of training.")] = 0,
    json: AsJson = False,
) -> None:
    """The main job on what ships inside: drawn street scenes and a small heavy network, offline, in a few minutes.

    Example:  slimseg demo --out runs/demo
    """
    from slimseg.demo.demo import demo as run
    from slimseg.report.terminal import show_slim

    result = run(out, seed, _progress())
    _show(result, json, lambda: show_slim(result))
    _exit_by_budget(result.budget_met)


def _given(names: dict[str, Any]) -> dict[str, Any]:
    """The options that say how to open a model."""
    keys = ("model", "weights", "input_size", "mean", "std", "channel_order", "output_kind", "output")
    return {key: names[key] for key in keys}


def _load(
    model: str,
    weights: Path | None,
    input_size: str | None,
    mean: str | None,
    std: str | None,
    channel_order: str | None,
    output_kind: str | None,
    output: str | None,
    say_notes: bool = True,
) -> Any:
    from slimseg.frontends import load

    graph = load(
        model,
        None if input_size is None else _size(input_size, "--input-size"),
        weights=weights,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        channel_order=channel_order,
        output_kind=output_kind,
        output=output,
    )
    for note in graph.notes if say_notes else ():
        _note(f"{graph.name}: {note}")
    if not graph.source_check.runtime:  # else the result says it
        _note(f"{graph.name}: {graph.source_check}")
    return graph


def _note(text: str) -> None:
    PlainConsole(stderr=True).print(Text.assemble(("note: ", "bold yellow"), text), soft_wrap=True)


def _exit_by_budget(is_met: bool) -> None:
    """Raises: typer.Exit where the result is outside its budget."""
    if not is_met:
        raise typer.Exit(BUDGET_MISSED)


def _images(data: Path | None, foreground: str | None) -> Any:
    """The folder of images, if there is one. Raises: UserError."""
    if data is None:
        if foreground is not None:
            raise UserError("--foreground is about masks: give --data")
        return None
    from slimseg.training.data import open_folder

    return open_folder(data, foreground)


def _runtime(name: str | None) -> Any:
    """The runtime that was asked for, if one was. Raises: UserError."""
    if name is None:
        return None
    from slimseg.runtimes.runtime import named

    return named(name).name


def _description(
    model: str,
    mean: str | None,
    std: str | None,
    channel_order: str | None,
    output_kind: str | None,
    output: str | None,
    **_: Any,
) -> Any:
    """What a `.tflite` says of itself, overruled by what the user says."""
    from slimseg.frontends import describe, guessed_preprocessing
    from slimseg.graph.preprocessing import in_bytes

    means, stds = _numbers("--mean", mean), _numbers("--std", std)
    description = describe(
        model, mean=means, std=stds, channel_order=channel_order, output_kind=output_kind, output=output
    )
    guess = guessed_preprocessing(model)[1] if means is None and stds is None else ""
    for note in filter(None, (in_bytes(means, stds)[2], guess)):
        _note(f"{model}: {note}")
    return description


def _size(text: str, option: str) -> tuple[int, int]:
    height, _, width = text.strip().lower().partition("x")
    if not (height.isdigit() and width.isdigit()):
        raise UserError(f"{option} {text!r} is no size: give HEIGHTxWIDTH, for example 256x320")
    return int(height), int(width)


def _numbers(option: str, text: str | None) -> list[float] | None:
    if text is None:
        return None
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise UserError(f"{option} {text!r} must be one number or three with commas between") from None


def _progress() -> Any:
    from slimseg.progress import Terminal

    return Terminal(PlainConsole(stderr=True))


def _show(result: Any, json: bool, render: Any) -> None:
    if json:
        _print_json(result)
    else:
        render()


def _print_json(result: Any) -> None:
    from slimseg.report.files import to_json

    print(to_json(result))


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
    line = " ".join(message.split())
    PlainConsole(stderr=True).print(Text.assemble(("error: ", "bold red"), line), soft_wrap=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
