"""`.pt2` files that somebody wrote on purpose: nothing in them runs, and they get no more than what they hold is worth.

Each is built from a small program that torch exported, by changing its JSON or its entries.
"""

from __future__ import annotations

import json
import sys
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import slimseg
from slimseg.errors import ModelError

Change = Callable[[dict[str, Any]], None]
LARGEST_GROWTH_BYTES = 400 << 20


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4)
        self.register_buffer("scale", torch.rand(1, 4, 1, 1) + 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"out": torch.relu(self.norm(self.conv(x))) * torch.exp(self.scale)}


def exported(path: Path, module: nn.Module, size: tuple[int, int] = (16, 16)) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about its future
        torch.export.save(torch.export.export(module.eval(), (torch.zeros(1, 3, *size),)), path)
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return exported(tmp_path_factory.mktemp("pt2") / "small.pt2", Net())


def rebuilt(source: Path, path: Path, change: Callable[[dict[str, bytes]], None], method: int = 0) -> Path:
    with zipfile.ZipFile(source) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def with_program(source: Path, path: Path, change: Change) -> Path:
    """The file with its program's JSON changed."""

    def on_json(entries: dict[str, bytes]) -> None:
        name = next(name for name in entries if "/models/" in name)
        program = json.loads(entries[name])
        change(program)
        entries[name] = json.dumps(program).encode()

    return rebuilt(source, path, on_json)


def calls(program: dict[str, Any]) -> list[dict[str, Any]]:
    return program["graph_module"]["graph"]["nodes"]  # type: ignore[no-any-return]


def call(target: str, inputs: list[tuple[str, Any]], result: str) -> dict[str, Any]:
    given = [{"name": name, "arg": argument, "kind": 1} for name, argument in inputs]
    outputs = [{"as_tensor": {"name": result}}]
    return {"target": f"torch.ops.aten.{target}", "inputs": given, "outputs": outputs, "metadata": {}, "name": result}


def tensor(name: str) -> dict[str, Any]:
    return {"as_tensor": {"name": name}}


def multiplied_in(program: dict[str, Any], made: list[dict[str, Any]], constant: str) -> None:
    """Put calls first, and have the network multiply its result by what they make."""
    nodes = calls(program)
    nodes[:0] = made
    nodes[-1]["inputs"][1]["arg"] = tensor(constant)


def refused(path: Path) -> str:
    with pytest.raises(ModelError) as caught:
        slimseg.load(path)
    message = str(caught.value)
    assert message.isprintable()
    assert path.name in message
    return message


_AUDITED: list[tuple[str, str]] = []
_STATE = {"hooked": False, "listening": False}


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if _STATE["listening"] and event in ("open", "import", "ctypes.dlopen", "subprocess.Popen", "os.system", "exec"):
        _AUDITED.append((event, str(arguments[0])))


@pytest.fixture
def audited(small: Path, tmp_path: Path) -> Iterator[list[tuple[str, str]]]:
    """What is opened and imported during a test, after everything that an innocent file needs was imported."""
    slimseg.load(with_program(small, tmp_path / "innocent.pt2", lambda program: None))
    if not _STATE["hooked"]:
        sys.addaudithook(_hook)
        _STATE["hooked"] = True
    _AUDITED.clear()
    _STATE["listening"] = True
    yield _AUDITED
    _STATE["listening"] = False


@pytest.fixture
def trap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module on the path that leaves a file behind where it is imported."""
    (tmp_path / "a_trap.py").write_text(f"open({str(tmp_path / 'sprung')!r}, 'w').close()\nvalue = {{'name': 1}}\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "sprung"
    sys.modules.pop("a_trap", None)


TRAP = {"__enum__": True, "fqn": "a_trap:value", "name": "name"}


def tree(context: str) -> str:
    leaf = {"type": None, "context": None, "children_spec": []}
    return json.dumps([1, {"type": "builtins.dict", "context": context, "children_spec": [leaf]}])


def in_spec(program: dict[str, Any]) -> None:
    program["graph_module"]["module_call_graph"][0]["signature"]["in_spec"] = tree(json.dumps([TRAP]))


def out_spec(program: dict[str, Any]) -> None:
    program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = tree(json.dumps([TRAP]))


def default_dict(program: dict[str, Any]) -> None:
    context = json.dumps({"default_factory_module": "a_trap", "default_factory_name": "value", "dict_context": ["out"]})
    text = tree(context).replace("builtins.dict", "collections.defaultdict")
    program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = text


def spec_of_a_child(program: dict[str, Any]) -> None:
    signature = dict(program["graph_module"]["module_call_graph"][0]["signature"], in_spec=tree(json.dumps([TRAP])))
    program["graph_module"]["module_call_graph"].append({"fqn": "conv", "signature": signature})


def metadata(program: dict[str, Any]) -> None:
    calls(program)[0]["metadata"] = {
        "source_fn_stack": "conv,a_trap.value",
        "nn_module_stack": "a,b,a_trap.value",
        "from_node": json.dumps([{"name": "a_trap", "target": "a_trap.value", "pass_name": "x", "action": ["x"]}]),
        "custom": json.dumps(TRAP),
    }


def unknown_fields(program: dict[str, Any]) -> None:
    program["initialise"] = program["graph_module"]["run"] = calls(program)[0]["hook"] = TRAP
    program["verifiers"] = ["a_trap"]
    program["guards_code"] = ["__import__('a_trap')"]
    program["range_constraints"] = {"__import__('a_trap')": {"min_val": 1, "max_val": 2}}
    program["graph_module"]["treespec_namedtuple_fields"] = {"a_trap.value": {"field_names": ["name"]}}
    program["graph_module"]["graph"]["sym_int_values"] = {"s": {"as_expr": {"expr_str": "__import__('a_trap')"}}}
    program["graph_module"]["graph"]["custom_obj_values"] = {"c": {"name": "c", "class_fqn": "a_trap.value"}}


@pytest.mark.parametrize(
    "change", [in_spec, out_spec, default_dict, spec_of_a_child, metadata, unknown_fields], ids=lambda f: f.__name__
)
def test_nothing_but_names_numbers_and_tensors_is_read(small, tmp_path, trap, audited, change):
    path = with_program(small, tmp_path / "evil.pt2", change)
    audited.clear()
    graph = slimseg.load(path)
    assert not trap.exists()
    assert {name for event, name in audited if event == "open"} == {str(path)}
    assert not any("trap" in name for event, name in audited if event == "import")
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(graph(x), slimseg.load(small)(x))


def test_a_file_that_is_a_program_of_the_system_as_well(small, tmp_path):
    path = tmp_path / "both.pt2"
    path.write_bytes(b"\x7fELF" + bytes(1000) + small.read_bytes())
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(slimseg.load(path)(x), slimseg.load(small)(x))


@pytest.mark.parametrize(
    "target",
    [
        "torch.ops.aten.set_.source_Tensor", "torch.ops.aten.resize_.default", "torch.ops.aten.rand_like.default",
        "torch.ops.aten.bernoulli.default", "torch.ops.aten.empty_like.default", "torch.ops.aten.relu.out",
        "torch.ops.aten.record_stream.default", "torch.ops.aten.as_strided.default", "torch.ops.aten.__class__",
        "torch.ops.higher_order.cond", "torch.ops.mkldnn._linear_pointwise.default", "torch.hub.load",
        "torch.ops.aten.relu.default.__call__", "torch.ops.load_library", "_operator.getitem", "math.sqrt", "#ext:op",
        "torch.ops.aten.nonzero.default", "torch.ops.aten._cudnn_rnn.default", "torch.ops.aten.relu.default\n",
    ],
)  # fmt: skip
def test_operators_that_a_network_does_not_need_are_refused(small, tmp_path, target):
    def change(program: dict[str, Any]) -> None:
        next(each for each in calls(program) if "relu" in each["target"])["target"] = target

    message = refused(with_program(small, tmp_path / "call.pt2", change))
    assert "calls" in message


def test_from_file_makes_no_file(small, tmp_path, audited):
    made = tmp_path / "made"
    given = [("filename", {"as_string": str(made)}), ("shared", {"as_bool": True}), ("size", {"as_int": 4096})]
    path = with_program(
        small,
        tmp_path / "evil.pt2",
        lambda program: multiplied_in(program, [call("from_file.default", given, "read")], "read"),
    )
    audited.clear()
    assert "aten.from_file" in refused(path)
    assert not made.exists()
    assert {name for event, name in audited if event == "open"} == {str(path)}


@pytest.mark.parametrize("where", ["inputs", "state"])
def test_names_never_become_code(small, tmp_path, where, trap):
    evil = 'x"), __import__("a_trap"), getattr(self, "x'

    def change(entries: dict[str, bytes]) -> None:
        for name, data in entries.items():
            if name.endswith(".json"):
                old = b'"conv.weight"' if where == "state" else b'"p_conv_weight"'
                entries[name] = data.replace(old, json.dumps(evil).encode())

    path = rebuilt(small, tmp_path / "evil.pt2", change)
    graph = slimseg.load(path)
    graph(torch.zeros(1, 3, 16, 16))
    assert not trap.exists()
    assert all(node.name.isidentifier() for node in graph.module.graph.nodes)
    assert all(str(node.target).isidentifier() for node in graph.module.graph.nodes if node.op == "call_module")


@pytest.mark.parametrize("name", ["self", "lambda", "forward", "train", "torch", "x y", "\u202etxt", "", "_1", "é"])
def test_a_value_of_any_name(small, tmp_path, name):
    def change(entries: dict[str, bytes]) -> None:
        for key, data in entries.items():
            if key.endswith(".json"):
                text = data.replace(b'"conv2d"', json.dumps(name).encode())
                entries[key] = text.replace(b'"conv.weight"', json.dumps(f"{name}.weight").encode())

    path = rebuilt(small, tmp_path / "named.pt2", change)
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(slimseg.load(path)(x), slimseg.load(small)(x))


def test_two_values_of_one_name(small, tmp_path):
    def change(program: dict[str, Any]) -> None:
        calls(program)[1]["outputs"] = [tensor("conv2d")]

    assert "two values with the name conv2d" in refused(with_program(small, tmp_path / "double.pt2", change))


# --- bombs


@pytest.fixture
def growth() -> Callable[[], int]:
    """By how many bytes the process's memory ever exceeded what it was at the start."""
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if not reset.exists():
        pytest.skip("this system does not tell a process's peak of memory")

    def field(name: str) -> int:
        (line,) = [line for line in status.read_text().splitlines() if line.startswith(name)]
        return int(line.split()[1]) << 10

    reset.write_text("5")
    start = field("VmRSS")
    return lambda: field("VmHWM") - start


def full(sizes: list[int], result: str) -> dict[str, Any]:
    return call("full.default", [("size", {"as_ints": sizes}), ("fill_value", {"as_float": 1.0})], result)


def largest(name: str, result: str) -> dict[str, Any]:
    dims, keep = ("dim", {"as_ints": [-2, -1]}), ("keepdim", {"as_bool": True})
    return call("amax.default", [("self", tensor(name)), dims, keep], result)


def many_full(program: dict[str, Any]) -> None:
    made = [full([1, 4, 3000, 3000], f"full_{number}") for number in range(40)]
    sums = [
        call("amax.default", [("self", tensor(f"full_{n}")), ("dim", {"as_ints": [2, 3]})], f"m{n}") for n in range(40)
    ]
    multiplied_in(program, [*made, *sums], "m0")


def repeated(program: dict[str, Any]) -> None:
    repeat = call("repeat.default", [("self", tensor("b_scale")), ("repeats", {"as_ints": [1, 1, 9000, 9000]})], "r")
    largest = call(
        "amax.default", [("self", tensor("r")), ("dim", {"as_ints": [2, 3]}), ("keepdim", {"as_bool": True})], "m"
    )
    multiplied_in(program, [repeat, largest], "m")


def squared(program: dict[str, Any]) -> None:
    """Products of large matrices: no memory to speak of, and hours of work."""
    made = [full([4000, 4000], "a0")]
    made += [call("mm.default", [("self", tensor(f"a{n}")), ("mat2", tensor("a0"))], f"a{n + 1}") for n in range(50)]
    multiplied_in(program, [*made, largest("a50", "m")], "m")


def one_huge(program: dict[str, Any]) -> None:
    multiplied_in(program, [full([1, 4, 1 << 30, 1 << 20], "huge")], "huge")


def resized(program: dict[str, Any]) -> None:
    size = ("output_size", {"as_ints": [60000, 60000]})
    given = [("input", tensor("mul")), size, ("scale_factors", {"as_none": True})]
    calls(program).append(call("upsample_nearest2d.vec", given, "large"))
    program["graph_module"]["graph"]["outputs"] = [tensor("large")]
    program["graph_module"]["signature"]["output_specs"][0]["user_output"]["arg"] = tensor("large")


def in_parts(program: dict[str, Any]) -> None:
    unbound = call("unbind.int", [("self", tensor("flat")), ("dim", {"as_int": 0})], "part")
    unbound["outputs"] = [{"as_tensors": [{"name": "part"}]}]
    multiplied_in(program, [full([1 << 27], "flat"), unbound], "part")


@pytest.mark.parametrize("bomb", [many_full, repeated, squared, one_huge, resized, in_parts], ids=lambda f: f.__name__)
def test_work_and_memory_are_bounded_by_what_is_there(small, tmp_path, growth, bomb):
    message = refused(with_program(small, tmp_path / "bomb.pt2", bomb))
    assert growth() < LARGEST_GROWTH_BYTES, message


def test_json_that_unpacks_to_gigabytes(small, tmp_path, growth):
    def change(entries: dict[str, bytes]) -> None:
        name = next(name for name in entries if "/models/" in name)
        entries[name] = b'{"a": [' + b"{}," * (40 << 20) + b"{}]}"

    message = refused(rebuilt(small, tmp_path / "bomb.pt2", change, zipfile.ZIP_DEFLATED))
    assert "unpacks to" in message
    assert growth() < LARGEST_GROWTH_BYTES


def test_json_of_a_great_many_values(small, tmp_path, growth):
    def change(entries: dict[str, bytes]) -> None:
        name = next(name for name in entries if "/models/" in name)
        entries[name] = b'{"a": [' + b'{"b": {}},' * 3_000_000 + b"{}]}"

    assert "more than a network needs" in refused(rebuilt(small, tmp_path / "bomb.pt2", change))
    assert growth() < LARGEST_GROWTH_BYTES


def test_entries_that_nothing_needs_are_not_unpacked(small, tmp_path, growth):
    path = tmp_path / "bomb.pt2"
    path.write_bytes(small.read_bytes())
    archive = zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive, archive.open("small/data/extra", "w") as entry:
        for _ in range(8):
            entry.write(bytes(64 << 20))
    slimseg.load(path)
    assert growth() < LARGEST_GROWTH_BYTES


def test_weights_that_unpack_to_far_more_than_is_there(small, tmp_path):
    def change(entries: dict[str, bytes]) -> None:
        entries[next(name for name in entries if name.endswith("weight_0"))] = bytes(100 << 20)

    path = rebuilt(small, tmp_path / "bomb.pt2", change, zipfile.ZIP_DEFLATED)
    assert "unpacks to" in refused(path)


def test_a_weight_that_is_one_number_seen_many_times(small, tmp_path, growth):
    def change(entries: dict[str, bytes]) -> None:
        name = next(name for name in entries if name.endswith("weights_config.json"))
        config = json.loads(entries[name])
        meta = config["config"]["scale"]["tensor_meta"]
        meta["sizes"] = [{"as_int": size} for size in (1, 4, 1 << 14, 1 << 14)]
        meta["strides"] = [{"as_int": stride} for stride in (4, 1, 0, 0)]
        entries[name] = json.dumps(config).encode()

    assert "constants that are far larger than the file" in refused(rebuilt(small, tmp_path / "bomb.pt2", change))
    assert growth() < LARGEST_GROWTH_BYTES


# --- archives and JSON that do not fit together


def test_entries_that_lie_over_each_other(small, tmp_path):
    path = tmp_path / "over.pt2"
    path.write_bytes(small.read_bytes())
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("small/one", bytes(100))
        archive.writestr("small/two", bytes(100))
        first, second = archive.infolist()[-2:]
        second.header_offset = first.header_offset
    assert "entries that overlap" in refused(path)


@pytest.mark.parametrize("entry", ["models/model.json", "extra/slimseg.json", "data/weights/model_weights_config.json"])
def test_json_that_is_nested_too_deeply(small, tmp_path, entry):
    deep = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    path = rebuilt(small, tmp_path / "deep.pt2", lambda entries: entries.update({f"small/{entry}": deep}))
    assert "nested too deeply" in refused(path)


def test_a_tree_that_is_nested_too_deeply_only_loses_names(small, tmp_path):
    def change(program: dict[str, Any]) -> None:
        program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = "[" * 100_000

    slimseg.load(with_program(small, tmp_path / "deep.pt2", change))


def wrong_bias(config: dict[str, Any]) -> None:
    config["config"]["conv.bias"]["tensor_meta"].update(sizes=[{"as_int": 3}])


def outside(config: dict[str, Any]) -> None:
    config["config"]["conv.weight"]["tensor_meta"]["storage_offset"] = {"as_int": 1 << 40}


def negative(config: dict[str, Any]) -> None:
    config["config"]["conv.weight"]["tensor_meta"]["sizes"][0] = {"as_int": -4}


def elsewhere(config: dict[str, Any]) -> None:
    config["config"]["conv.weight"]["path_name"] = "../../../../etc/passwd"


@pytest.mark.parametrize("change", [wrong_bias, outside, negative, elsewhere], ids=lambda f: f.__name__)
def test_weights_that_do_not_fit(small, tmp_path, change):
    def on_json(entries: dict[str, bytes]) -> None:
        name = next(name for name in entries if name.endswith("weights_config.json"))
        config = json.loads(entries[name])
        change(config)
        entries[name] = json.dumps(config).encode()

    refused(rebuilt(small, tmp_path / "bad.pt2", on_json))


def with_input(sizes: list[int], dtype: int = 7) -> Change:
    def change(program: dict[str, Any]) -> None:
        meta = program["graph_module"]["graph"]["tensor_values"]["x"]
        meta.update(sizes=[{"as_int": size} for size in sizes], dtype=dtype)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (with_input([1, 48, 64, 3]), "takes x of shape (1, 48, 64, 3), channels last: .* takes (1, 3, 48, 64)"),
        (with_input([2, 3, 16, 16]), "takes x of shape (2, 3, 16, 16), not one image"),
        (with_input([3, 16, 16]), "takes x of shape (3, 16, 16), not one image"),
        (with_input([1, 3, 1 << 20, 16]), "export it with sides from 1 to 8192"),
        (with_input([1, 3, 16, 16], 1), "torch.uint8: export it so that it takes float32"),
        (with_input([1, 5, 16, 16]), "does not fit its input (conv2d: "),
    ],
)
def test_inputs_that_are_no_image(small, tmp_path, change, said):
    message = refused(with_program(small, tmp_path / "input.pt2", change))
    assert all(part in message for part in said.split(" .* "))


def test_several_inputs_are_named(tmp_path):
    class Two(nn.Module):
        def forward(self, x: Tensor, depth: Tensor) -> Tensor:
            return x * depth

    path = tmp_path / "two.pt2"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image = torch.zeros(1, 3, 16, 16)
        torch.export.save(torch.export.export(Two(), (image, image + 1)), path)
    assert "takes 2 inputs (x, depth), not one image" in refused(path)


def in_training(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(torch.export.export(module.train(), (torch.zeros(1, 3, 16, 16),)), path)
    return path


@pytest.mark.parametrize(
    "layer", [nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Dropout2d(0.5)], ids=lambda layer: type(layer).__name__
)
def test_networks_in_training_are_told_to_stop(tmp_path, layer):
    path = in_training(nn.Sequential(nn.Conv2d(3, 3, 3), layer, nn.ReLU()), tmp_path / "training.pt2")
    assert ": call .eval() before exporting" in refused(path)


def test_functions_of_parameters_are_still_computed(tmp_path):
    """What is bounded is not refused: weight normalisation, resized tables, constants made on the spot."""

    class Constants(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3, padding=1))
            self.table = nn.Parameter(torch.randn(1, 4, 5, 7))

        def forward(self, x: Tensor) -> Tensor:
            table = F.interpolate(self.table, x.shape[2:], mode="bicubic")
            mask = torch.zeros(4)
            mask[1:3] = 2.0
            return self.conv(x) + table + mask.reshape(1, 4, 1, 1) + torch.tensor([1.0, 2.0, 3.0, 4.0])[:, None, None]

    torch.manual_seed(0)
    module = Constants().eval()
    graph = slimseg.load(exported(tmp_path / "constants.pt2", module))
    x = torch.randn(1, 3, 16, 16)
    torch.testing.assert_close(graph(x), module(x))
    assert isinstance(graph.layer(graph.node("conv")), nn.Conv2d)
