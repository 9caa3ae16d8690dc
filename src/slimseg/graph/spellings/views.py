"""Reshapes and transposes in a row as the fewest that arrange values the same way.

Each exporter spells the way from a map to the heads of attention differently: through five dimensions or four, with
dimensions of length 1 or without them, from NCHW or from NHWC. All of them

    split some dimensions,  reorder the parts,  join neighbouring parts

so a row of reshapes and transposes is followed part by part, and then written as one reshape, one transpose and one
reshape, or fewer. Maps are read and written in NHWC where both orders take equally many steps, since mobile files store
them so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from torch import fx, nn

from slimseg.graph import ops
from slimseg.graph.graph import Graph, producer
from slimseg.graph.orders import TO_NCHW, TO_NHWC
from slimseg.graph.rewriting import insert_before, is_read_once
from slimseg.graph.shapes import Shape

View = ops.Reshape | ops.Transpose
_LONGEST = 64  # reshapes and transposes in one row
_MOST_DIMS = 6  # that runtimes transpose: a row with more parts, as Hiera's order of tokens, stays as it is
_TRANSPOSE = 10.0  # the costs of steps, to choose between spellings: a transpose moves every value
_LAST_MOVES = 0.5  # of a transpose that also takes neighbouring values apart
_RESHAPE = 1.0
_UNNATURAL = 11.5  # of a reshape that reads or writes a map in NCHW: mobile files transpose it


@dataclass(eq=False)
class Part:
    """A dimension, or a part of one, that stays together."""

    length: int
    is_batch: bool = False  # the images, of which a Graph has one


@dataclass
class Arrangement:
    """The parts of a value's dimensions before and after a row of views."""

    before: list[list[Part]]
    after: list[list[Part]] = field(default_factory=list)

    @staticmethod
    def of(shape: Shape) -> Arrangement:
        dims = [[Part(length)] if length > 1 else [] for length in shape]
        dims[0].insert(0, Part(1, is_batch=True))
        return Arrangement(dims, [list(dim) for dim in dims])

    def transpose(self, dims: Sequence[int]) -> None:
        self.after = [self.after[dim] for dim in dims]

    def reshape(self, shape: Sequence[int]) -> bool:
        """Regroup the parts as dimensions of `shape`; returns whether that is possible by splitting parts."""
        rest = [part for dim in self.after for part in dim]
        grouped: list[list[Part]] = []
        for length in shape:
            dim: list[Part] = []
            while rest and (rest[0].is_batch or math.prod(part.length for part in dim) < length):
                wanted = length // math.prod(part.length for part in dim)
                if rest[0].length > wanted and not self._split(rest, wanted):
                    return False
                dim.append(rest.pop(0))
            if math.prod(part.length for part in dim) != length:
                return False
            grouped.append(dim)
        self.after = grouped
        return not rest

    def images_first(self) -> None:
        """Let a first dimension of length 1 be that of the images, which may have been another one in between."""
        if not self.after[0]:
            for dim in self.after:
                self.after[0] += [part for part in dim if part.is_batch]
                if dim is not self.after[0]:
                    dim[:] = [part for part in dim if not part.is_batch]

    def drop_short(self) -> None:
        """Leave out parts that have become as short as 1."""
        for dims in (self.before, self.after):
            for dim in dims:
                dim[:] = [part for part in dim if part.length > 1 or part.is_batch]

    def _split(self, rest: list[Part], wanted: int) -> bool:
        whole = rest[0]
        if wanted < 2 or whole.length % wanted:
            return False
        parts = [Part(wanted), Part(whole.length // wanted)]
        for dims in (self.before, self.after, [rest]):
            for dim in dims:
                if any(part is whole for part in dim):
                    place = next(index for index, part in enumerate(dim) if part is whole)
                    dim[place : place + 1] = parts
        return True


@dataclass(frozen=True)
class Spelling:
    """Views that follow one another, and what they cost."""

    layers: tuple[View, ...]
    cost: float


def simplify(graph: Graph, sources: Collection[fx.Node] | None = None) -> None:
    """Write every row of views in its cheapest spelling, in place.

    Args:
        sources: only rows that read these values or functions of them; None: all rows.
    """
    for node in list(graph.layers()):
        if not is_view(graph, node) or any(_continues(graph, node, reader) for reader in node.users):
            continue
        row = _row(graph, node)
        if sources is not None and not _reads(row[0], sources):
            continue
        spelling = cheapest(graph, row)
        old = [graph.layer(each) for each in row]
        if spelling is not None and [_settings(each) for each in old] != [_settings(each) for each in spelling.layers]:
            rewrite(graph, row, spelling)


def row_to(graph: Graph, node: fx.Node) -> list[fx.Node]:
    """The views that end in `node`, the first one first; empty if it is none."""
    return _row(graph, node) if is_view(graph, node) else []


def _reads(view: fx.Node, sources: Collection[fx.Node]) -> bool:
    before = producer(view)
    return before in sources or any(source in sources for source in before.all_input_nodes)


def cheapest(graph: Graph, row: Sequence[fx.Node], more: Sequence[View] = ()) -> Spelling | None:
    """The cheapest spelling of a row of views, and of `more` behind it; None if it cannot be followed."""
    found = followed(graph, row, more)
    if found is None:
        return None
    shape = tuple(math.prod(part.length for part in dim) for dim in found.after)
    return cheapest_of(found, graph.shape(producer(row[0])), shape)


def cheapest_layers(source: Shape, layers: Sequence[View]) -> Spelling | None:
    """The cheapest spelling of views that follow a value of the shape `source`; None if they cannot be followed."""
    found = _arrangement(source, layers)
    if found is None:
        return None
    found.images_first()
    return cheapest_of(found, source, tuple(math.prod(part.length for part in dim) for dim in found.after))


def followed(graph: Graph, row: Sequence[fx.Node], more: Sequence[View] = ()) -> Arrangement | None:
    """What a row of views does; None if it takes a dimension apart in another way than dividing it."""
    layers = [layer for each in row if isinstance(layer := graph.layer(each), View)]
    found = _arrangement(graph.shape(producer(row[0])), [*layers, *more])
    if found is not None:
        found.images_first()
    return found


def cheapest_of(found: Arrangement, source: Shape, shape: Shape) -> Spelling | None:
    """The cheapest spelling that arranges a value of the shape `source` so that it has the shape `shape`."""
    if not found.after[0] or not found.after[0][0].is_batch:
        return None
    if shape == source and is_identity(found):
        return Spelling((), 0.0)
    possible = filter(_is_transposed, _spellings(found, source, shape))
    return min(possible, key=lambda each: (len(each.layers) > 1, each.cost), default=None)


def _is_transposed(spelling: Spelling) -> bool:
    """Whether runtimes have all of its transposes."""
    return all(len(each.dims) <= _MOST_DIMS for each in spelling.layers if isinstance(each, ops.Transpose))


def is_identity(found: Arrangement) -> bool:
    """Whether all values stay in their order."""
    return _order(found.before) == _order(found.after)


def rewrite(graph: Graph, row: Sequence[fx.Node], spelling: Spelling) -> fx.Node:
    """Put a spelling in the place of a row; returns the node that now holds the result."""
    value, last = producer(row[0]), row[-1]
    for layer in spelling.layers:
        value = insert_before(graph, last, layer, (value,), last.name)
    last.replace_all_uses_with(value)
    name = last.name
    for node in reversed(row):
        graph.module.graph.erase_node(node)
    if spelling.layers:
        value.name = name
    return value


def is_view(graph: Graph, node: fx.Node) -> bool:
    return graph.layer_as(node, (ops.Reshape, ops.Transpose)) is not None


# --- rows


def _continues(graph: Graph, node: fx.Node, reader: fx.Node) -> bool:
    return is_read_once(node) and is_view(graph, reader)


def _row(graph: Graph, node: fx.Node) -> list[fx.Node]:
    row = [node]
    while len(row) < _LONGEST and is_view(graph, before := producer(row[0])) and is_read_once(before):
        row.insert(0, before)
    return row


def _arrangement(source: Shape, layers: Sequence[View]) -> Arrangement | None:
    found, shape = Arrangement.of(source), source
    for layer in layers:
        if isinstance(layer, ops.Transpose):
            found.transpose(layer.dims)
            shape = tuple(shape[dim] for dim in layer.dims)
            continue
        total, known = math.prod(shape), math.prod(length for length in layer.shape if length != -1)
        after = tuple(total // known if length == -1 else length for length in layer.shape)
        last = layer.channels_last
        if last and len(shape) == 4:
            found.transpose(TO_NHWC)
        if not found.reshape([after[dim] for dim in TO_NHWC] if last and len(after) == 4 else after):
            return None
        if last and len(after) == 4:
            found.transpose(TO_NCHW)
        shape = after
    return found


def _settings(layer: nn.Module | None) -> tuple[str, str]:
    return type(layer).__name__, layer.extra_repr() if layer is not None else ""


# --- spellings


def _order(dims: Sequence[Sequence[Part]]) -> list[int]:
    return [id(part) for dim in dims for part in dim]


def _spellings(found: Arrangement, source: Shape, shape: Shape) -> Iterator[Spelling]:
    """All ways to read the source and to write the result, in NHWC or in NCHW, the preferred ones first."""
    dims = _as_transpose(found)
    if dims is not None:
        yield _costed((ops.Transpose(dims),), source)
    for reads, writes in itertools.product(_readings(source), _readings(shape)):
        before = [found.before[dim] for dim in TO_NHWC] if reads else found.before
        after = [found.after[dim] for dim in TO_NHWC] if writes else found.after
        if _order(before) == _order(after):
            if reads == writes or len(source) != 4 or len(shape) != 4:
                yield _costed((ops.Reshape(shape, reads or writes),), source)
            continue
        for joined in (False, True):
            for with_batch in (False, True):
                yield _costed(_steps(before, after, (source, reads), (shape, writes), joined, with_batch), source)


def _readings(shape: Shape) -> tuple[bool, ...]:
    """Whether a value may be read in NHWC: True and False; only False where the orders are the same."""
    has_orders = len(shape) == 4 and shape[1] > 1 and shape[2] * shape[3] > 1
    return (True, False) if has_orders else (False,)


def _as_transpose(found: Arrangement) -> tuple[int, ...] | None:
    """The dimensions of a single transpose that does it all; None if some are split or joined."""
    if len(found.before) != len(found.after):
        return None
    places = {tuple(map(id, dim)): place for place, dim in enumerate(found.before) if dim}
    short = iter(place for place, dim in enumerate(found.before) if not dim)
    dims = [places.get(tuple(map(id, dim)), -1) if dim else next(short, -1) for dim in found.after]
    return tuple(dims) if sorted(dims) == list(range(len(dims))) else None


def _steps(
    before: Sequence[Sequence[Part]],
    after: Sequence[Sequence[Part]],
    source: tuple[Shape, bool],
    result: tuple[Shape, bool],
    joined: bool,
    with_batch: bool,
) -> tuple[View, ...]:
    """Split, reorder, join.

    Args:
        source, result: shapes, and whether they are read and written in NHWC.
        joined: whether parts that stay neighbours are moved as one dimension.
        with_batch: whether the part behind the images is one dimension with them.
    """
    units = _units(before, after, joined, with_batch)
    flat = [part for dim in after for part in dim]
    place = {id(part): index for index, part in enumerate(flat)}
    order = sorted(range(len(units)), key=lambda index: place[id(units[index][0])])
    split = tuple(math.prod(part.length for part in unit) for unit in units)
    moved = tuple(split[index] for index in order)
    layers: list[View] = []
    (start, reads), (end, writes) = source, result
    if reads:
        if len(split) == 4:
            layers.append(ops.Reshape(_rows(start), True))
            layers.append(ops.Reshape(split, False))
        else:
            layers.append(ops.Reshape(split, True))
    elif split != start:
        layers.append(ops.Reshape(split, False))
    layers.append(ops.Transpose(tuple(order)))
    if writes:
        if len(moved) == 4:
            layers.append(ops.Reshape(_rows(end), False))
        layers.append(ops.Reshape(end, True))
    elif moved != end:
        layers.append(ops.Reshape(end, False))
    return tuple(layers)


def _rows(shape: Shape) -> Shape:
    """The shape of a map as a sequence of pixels."""
    batch, channels, height, width = shape
    return (batch, height * width, channels)


def _units(
    before: Sequence[Sequence[Part]], after: Sequence[Sequence[Part]], joined: bool, with_batch: bool
) -> list[list[Part]]:
    """The parts as dimensions that are reordered: neighbours that stay neighbours are one, if they may be joined."""
    flat = [part for dim in after for part in dim]
    follows = {id(one): id(other) for one, other in itertools.pairwise(flat)}
    inside = {id(part): index for index, dim in enumerate(after) for part in dim}
    units: list[list[Part]] = []
    for dim in before:
        for index, part in enumerate(dim):
            previous = units[-1][-1] if units else None
            if previous is not None and follows.get(id(previous)) == id(part):
                same = index > 0 and inside[id(previous)] == inside[id(part)]
                if with_batch if previous.is_batch else joined or same:
                    units[-1].append(part)
                    continue
            units.append([part])
    return units


def _costed(layers: tuple[View, ...], source: Shape) -> Spelling:
    cost, rank, last = 0.0, len(source), len(layers) - 1
    for index, layer in enumerate(layers):
        if isinstance(layer, ops.Transpose):
            cost += _TRANSPOSE + (0 if layer.dims[-1] == len(layer.dims) - 1 else _LAST_MOVES) + len(layer.dims) / 100
            rank = len(layer.dims)
            continue
        reads_map = index == 0 and rank == 4 and len(_readings(source)) > 1
        writes_map = index == last and len(layer.shape) == 4 and len(_readings(layer.shape)) > 1
        cost += _RESHAPE + (_UNNATURAL if not layer.channels_last and (reads_map or writes_map) else 0)
        rank = len(layer.shape)
    return Spelling(layers, cost)
