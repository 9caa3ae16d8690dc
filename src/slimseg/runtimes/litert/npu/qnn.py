"""Qualcomm's C interface (QNN) to its NPU compiler, as far as it is needed to run a network on this machine.

On x86-64, libQnnHtp.so does not only compile for the NPU: it also runs what it compiled, with the NPU's arithmetic. It
reads a network from a file that LiteRT's plugin writes (a DLC, "deep learning container").

    QnnInterface_getProviders -> a table of functions, each at a fixed place in it
    logCreate -> backendCreate -> deviceCreate (for a chip) -> contextCreate
    systemDlcCreateFromFile -> systemDlcComposeGraphs: the network becomes a graph of the context
    graphFinalize: compiles it -> graphExecute: runs it

Layouts of structures and places of functions are those of version 2 of the interface, as Qualcomm documents it
("Qualcomm AI Engine Direct SDK, API reference"). Runs in the child process.
"""

from __future__ import annotations

import ctypes as c
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from slimseg.errors import RuntimeFailure
from slimseg.runtimes.litert.npu.libraries import COMPILER, SYSTEM

_MAJOR = 2  # version of the interface
_BACKEND_CREATE, _CONTEXT_CREATE, _CONTEXT_FREE = 1, 9, 14
_GRAPH_FINALIZE, _GRAPH_RETRIEVE, _GRAPH_EXECUTE = 19, 20, 21
_LOG_CREATE, _PROFILE_CREATE = 25, 28
_PROFILE_EVENTS, _PROFILE_SUB_EVENTS, _PROFILE_EVENT_DATA = 30, 31, 32
_DEVICE_CREATE = 40
_DLC_FROM_FILE, _DLC_COMPOSE, _DLC_FREE = 8, 10, 12  # in the table of libQnnSystem.so
_FEWEST_FUNCTIONS, _MOST_FUNCTIONS = 48, 128  # in the table of libQnnHtp.so; later versions have more
_CUSTOM, _SOC = 0, 0  # kinds of configuration
_OPTIMISATION, _PRECISION, _VTCM = 1, 2, 3  # options of an NPU's graph
_FINALIZE_LEVEL, _FLOAT16, _ALL_VTCM = 3, 1, 0  # values of these options
_HIGHEST_LEVEL = 3.0
_ERRORS_ONLY, _DETAILED, _FIRST_VERSION, _RAW = 1, 2, 1, 0
_TYPES = {  # Qnn_DataType_t
    0x0008: np.int8,
    0x0016: np.int16,
    0x0032: np.int32,
    0x0064: np.int64,
    0x0108: np.uint8,
    0x0116: np.uint16,
    0x0132: np.uint32,
    0x0164: np.uint64,
    0x0216: np.float16,
    0x0232: np.float32,
    0x0508: np.bool_,
    0x0308: np.int8,
    0x0316: np.int16,
    0x0332: np.int32,
    0x0408: np.uint8,
    0x0416: np.uint16,
    0x0432: np.uint32,
}


class _Version(c.Structure):
    _fields_: ClassVar = [("major", c.c_uint32), ("minor", c.c_uint32), ("patch", c.c_uint32)]


class _Provider(c.Structure):
    """What comes before the table of functions in QnnInterface_t."""

    _fields_: ClassVar = [("id", c.c_uint32), ("name", c.c_char_p), ("core", _Version), ("backend", _Version)]


class _SystemProvider(c.Structure):
    _fields_: ClassVar = [
        *(("id", c.c_uint32), ("name", c.c_char_p), ("core", _Version)),
        ("functions", c.c_void_p * 16),
    ]


class _Option(c.Structure):
    """QnnHtpDevice_CustomConfig_t and QnnHtpGraph_CustomConfig_t: an option, and its value in a union."""

    _fields_: ClassVar = [
        *(("option", c.c_uint64), ("value", c.c_uint32), ("number", c.c_float)),
        ("rest", c.c_uint64 * 6),
    ]


class _Config(c.Structure):
    """QnnDevice_Config_t and QnnGraph_Config_t."""

    _fields_: ClassVar = [("kind", c.c_uint32), ("value", c.c_void_p)]


class _GraphConfig(c.Structure):
    """QnnSystemDlc_GraphConfigInfo_t."""

    _fields_: ClassVar = [
        *(("version", c.c_uint32), ("graph", c.c_char_p)),
        *(("configs", c.c_void_p), ("count", c.c_uint32)),
    ]


class _Tensor(c.Structure):
    """Qnn_Tensor_t, versions 1 and 2."""

    _fields_: ClassVar = [
        *(("version", c.c_uint32), ("id", c.c_uint64), ("name", c.c_char_p)),
        *(("kind", c.c_uint32), ("format", c.c_uint32), ("dtype", c.c_uint32), ("quantisation", c.c_uint64 * 5)),
        *(("rank", c.c_uint32), ("shape", c.POINTER(c.c_uint32)), ("memory", c.c_uint32)),
        *(("data", c.c_void_p), ("size", c.c_uint32), ("more", c.c_uint64 * 3)),
    ]


class _Graph(c.Structure):
    """QnnSystemContext_GraphInfo_t, version 1."""

    _fields_: ClassVar = [
        *(("version", c.c_uint32), ("name", c.c_char_p)),
        *(("input_count", c.c_uint32), ("inputs", c.POINTER(_Tensor))),
        *(("output_count", c.c_uint32), ("outputs", c.POINTER(_Tensor))),
    ]


class _Event(c.Structure):
    """QnnProfile_EventData_t."""

    _fields_: ClassVar = [
        *(("type", c.c_uint32), ("unit", c.c_uint32), ("value", c.c_uint64)),
        ("name", c.c_char_p),
    ]


@dataclass(frozen=True)
class Output:
    """One output of a network."""

    name: str
    value: NDArray[Any]  # in the network's own type and order of dimensions


class Network:
    """One network, compiled for one chip.

    Args:
        folder: Qualcomm's libraries.
        dlc: the network, as LiteRT's plugin writes it.
        soc: Qualcomm's number of the chip.
        floats: whether the chip computes in float16.

    Raises:
        RuntimeFailure: the library refuses the network, or its version is another.
    """

    def __init__(self, folder: Path, dlc: Path, soc: int, floats: bool) -> None:
        self._libraries = [c.CDLL(str(folder / name)) for name in (SYSTEM, COMPILER)]
        self._system = _provider(self._libraries[0].QnnSystemInterface_getProviders, _SystemProvider)
        self._interface = _interface(_provider(self._libraries[1].QnnInterface_getProviders, _Provider))
        self._kept: list[Any] = []  # structures that the library points to
        log, backend, device = self._create(_LOG_CREATE, None, c.c_int(_ERRORS_ONLY)), c.c_void_p(), c.c_void_p()
        self._call(_BACKEND_CREATE, log, None, c.byref(backend))
        self._backend = backend
        chip = self._configs([_Option(option=_SOC, value=soc)])
        self._call(_DEVICE_CREATE, log, chip, c.byref(device))
        self._context = self._create(_CONTEXT_CREATE, backend, device, None)
        self._info = self._composed(dlc, floats)
        self._graph = self._create(_GRAPH_RETRIEVE, self._context, c.c_char_p(self._info.name))
        self._profile = self._create(_PROFILE_CREATE, backend, c.c_uint32(_DETAILED))
        self._call(_GRAPH_FINALIZE, self._graph, self._profile, None)

    def _composed(self, dlc: Path, floats: bool) -> _Graph:
        options = [_Option(option=_OPTIMISATION, value=_FINALIZE_LEVEL, number=_HIGHEST_LEVEL)]
        options.append(_Option(option=_VTCM, value=_ALL_VTCM))
        if floats:
            options.append(_Option(option=_PRECISION, value=_FLOAT16))
        configs = self._configs(options)
        wanted = _GraphConfig(_FIRST_VERSION, dlc.stem.encode(), c.cast(configs, c.c_void_p), len(options))
        pointers = (c.c_void_p * 2)(c.addressof(wanted), None)
        handle, graphs, count = c.c_void_p(), c.POINTER(_Graph)(), c.c_uint32()
        _checked("systemDlcCreateFromFile", self._of_system(_DLC_FROM_FILE)(None, str(dlc).encode(), c.byref(handle)))
        compose = self._of_system(_DLC_COMPOSE)
        compose.argtypes = [*[c.c_void_p] * 2, c.c_uint32, *[c.c_void_p] * 2, type(self._interface), c.c_uint32]
        compose.argtypes += [c.c_void_p] * 2
        status = compose(
            *(handle, c.cast(pointers, c.c_void_p), 1, self._backend, self._context, self._interface),
            *(_FIRST_VERSION, c.cast(c.byref(graphs), c.c_void_p), c.cast(c.byref(count), c.c_void_p)),
        )
        _checked("systemDlcComposeGraphs", status)
        if count.value != 1 or not graphs:
            raise RuntimeFailure(f"Qualcomm's simulator made {count.value} graphs of {dlc.name}, not one")
        self._kept += [handle, graphs]
        graph: _Graph = graphs[0]
        return graph

    def run(self, value: NDArray[Any]) -> list[Output]:
        """All outputs for one input, in the network's own type and order of dimensions."""
        given = self._info.inputs[0]
        value = np.ascontiguousarray(value.reshape(_shape(given)), _dtype(given))
        _bind(given, value)
        results = [np.zeros(_shape(each), _dtype(each)) for each in self._outputs]
        for each, result in zip(self._outputs, results, strict=True):
            _bind(each, result)
        self._call(
            *(_GRAPH_EXECUTE, self._graph, c.byref(given), c.c_uint32(1)),
            *(self._info.outputs, c.c_uint32(len(results)), None, None),
        )
        names = [(each.name or b"").decode(errors="replace") for each in self._outputs]
        return [Output(name, result) for name, result in zip(names, results, strict=True)]

    @property
    def _outputs(self) -> list[_Tensor]:
        return [self._info.outputs[place] for place in range(self._info.output_count)]

    def events(self) -> dict[str, int]:
        """What the compiler reports on the network, by the names that it gives; the first of each name."""
        found: dict[str, int] = {}
        self._read_events(_PROFILE_EVENTS, self._profile, found)
        return found

    def _read_events(self, kind: int, of: Any, found: dict[str, int]) -> None:
        identifiers, count = c.POINTER(c.c_uint64)(), c.c_uint32()
        self._call(kind, of, c.byref(identifiers), c.byref(count))
        for place in range(count.value):
            event, identifier = _Event(), c.c_uint64(identifiers[place])
            self._call(_PROFILE_EVENT_DATA, identifier, c.byref(event))
            found.setdefault((event.name or b"").decode(errors="replace"), event.value)
            self._read_events(_PROFILE_SUB_EVENTS, identifier, found)

    def close(self) -> None:
        """Free the network's memory."""
        self._call(_CONTEXT_FREE, self._context, None)
        self._of_system(_DLC_FREE)(self._kept[-2])

    def _configs(self, options: Sequence[_Option]) -> Any:
        """An array of pointers to configurations, ended by a null pointer."""
        configs = [_Config(_CUSTOM, c.addressof(each)) for each in options]
        pointers = (c.c_void_p * (len(configs) + 1))(*map(c.addressof, configs), None)
        self._kept = [*options, *configs, pointers, *self._kept]
        return pointers

    def _create(self, place: int, *arguments: Any) -> c.c_void_p:
        handle = c.c_void_p()
        self._call(place, *arguments, c.byref(handle))
        return handle

    def _call(self, place: int, *arguments: Any) -> None:
        _checked(f"function {place}", _function(self._interface.functions[place])(*arguments))

    def _of_system(self, place: int) -> Any:
        return _function(self._system.functions[place])


def _provider(function: Any, kind: type[Any]) -> Any:
    providers, count = c.POINTER(c.POINTER(kind))(), c.c_uint32()
    function.restype = c.c_uint64
    _checked("getProviders", function(c.byref(providers), c.byref(count)))
    if not count.value:
        raise RuntimeFailure("Qualcomm's library has no interface")
    return providers[0].contents


def _interface(provider: _Provider) -> Any:
    """The whole of QnnInterface_t. Its length, which matters as it is passed by value, is that of its table.

    The table states no length, and later versions add functions at its end: it ends before the first address that is
    not in the library.
    """
    if provider.core.major != _MAJOR:
        raise RuntimeFailure(f"Qualcomm's library has version {provider.core.major} of its interface, not {_MAJOR}")
    places = (c.c_void_p * _MOST_FUNCTIONS).from_address(c.addressof(provider) + c.sizeof(_Provider))
    code = _addresses(COMPILER)
    within = (any((address or 0) in part for part in code) for address in places)
    count = next((place for place, is_function in enumerate(within) if not is_function), 0)
    if count < _FEWEST_FUNCTIONS:
        raise RuntimeFailure(f"Qualcomm's library has {count} functions: slimseg does not know this version")

    class Interface(c.Structure):
        _fields_: ClassVar = [("provider", _Provider), ("functions", c.c_void_p * count)]

    return Interface.from_address(c.addressof(provider))


def _addresses(library: str) -> list[range]:
    """Where a library lies in this process's memory."""
    lines = Path("/proc/self/maps").read_text().splitlines()
    ends = (line.split()[0].split("-") for line in lines if line.endswith(f"/{library}"))
    return [range(int(first, 16), int(last, 16)) for first, last in ends]


def _function(address: int) -> Any:
    return c.CFUNCTYPE(c.c_uint64)(address)


def _checked(what: str, status: int) -> None:
    if status:
        raise RuntimeFailure(f"Qualcomm's simulator refuses the network ({what}: error {status & 0xFFFF})")


def _shape(tensor: _Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape[: tensor.rank])


def _dtype(tensor: _Tensor) -> Any:
    if tensor.dtype not in _TYPES:
        raise RuntimeFailure(f"Qualcomm's simulator has values of type {tensor.dtype:#x}, which slimseg does not know")
    return _TYPES[tensor.dtype]


def _bind(tensor: _Tensor, value: NDArray[Any]) -> None:
    tensor.memory, tensor.data, tensor.size = _RAW, value.ctypes.data, value.nbytes
