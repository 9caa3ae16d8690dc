"""Prices: the part that an edit changes, before and after, on the runtime."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from slimseg.deployment import Deployment, Precision
from slimseg.errors import RuntimeFailure
from slimseg.graph.graph import Graph
from slimseg.planning.pricing import whatif
from slimseg.progress import Silent
from slimseg.runtimes import benchmark
from slimseg.techniques import Site, named
from slimseg.techniques.separable import Factors
from slimseg.tflite import file

INT8 = Deployment(precision="int8")


def site_of(graph: Graph, technique: str, layer: str, variant: str) -> Site:
    sites = named(technique).find(graph).sites
    return next(site for site in sites if layer in site.layers and site.variant == variant)


@pytest.fixture
def upsampling(shapes_graph: Graph) -> Site:
    return site_of(shapes_graph, "transposed convolution to resize", "up2", "1x1, bilinear")


def written(graph: Graph, site: Site, deployment: Deployment, folder: Path) -> list[file.File]:
    files = whatif._Files(folder, deployment)
    return [file.read(path) for path in whatif._pair(graph, site, files)]


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_site_has_a_price(shapes_graph: Graph, upsampling: Site, precision: Precision) -> None:
    priced = whatif.price(shapes_graph, [upsampling], Deployment(precision=precision), Silent())
    price = priced.prices[upsampling]
    assert priced.refusals == ()
    assert 0 < price.after_ms < price.before_ms  # a quarter of the pixels and a sixteenth of the kernel
    assert price.saving_ms == pytest.approx(price.before_ms - price.after_ms)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_files_are_of_the_wanted_precision_to_their_ends(
    shapes_graph: Graph, upsampling: Site, precision: Precision, tmp_path: Path
) -> None:
    for part in written(shapes_graph, upsampling, Deployment(precision=precision), tmp_path):
        assert (part.inputs[0].dtype, part.outputs[0].dtype) == (precision, precision)
        assert {"QUANTIZE", "DEQUANTIZE"}.isdisjoint(operator.op for operator in part.operators)


def test_a_part_includes_what_is_fused_into_it(shapes_graph: Graph, tmp_path: Path) -> None:
    site = site_of(shapes_graph, "separable convolution", "middle_0", "rank 1")
    end = shapes_graph.node(whatif.end_of_part(shapes_graph, site.target, Deployment()))
    assert "relu" in type(shapes_graph.layer(end)).__name__.lower()
    before, after = written(shapes_graph, site, Deployment(), tmp_path)
    assert [operator.op for operator in before.operators] == ["CONV_2D"]
    assert [operator.op for operator in after.operators] == ["DEPTHWISE_CONV_2D", "CONV_2D"]
    assert before.inputs[0].shape == after.inputs[0].shape == (1, 32, 40, 32)
    assert before.outputs[0].shape == after.outputs[0].shape == (1, 32, 40, 32)


def test_what_changes_the_whole_is_timed_as_a_whole(shapes_graph: Graph, tmp_path: Path) -> None:
    size = named("input size").find(shapes_graph).sites[-1]
    before, after = written(shapes_graph, size, Deployment(), tmp_path)
    assert before.inputs[0].shape == (1, 128, 160, 3)
    height, width = map(int, size.variant.split("x"))
    assert after.inputs[0].shape == (1, height, width, 3)
    assert height < 128


def test_variants_share_the_file_before(shapes_graph: Graph, tmp_path: Path) -> None:
    files = whatif._Files(tmp_path, Deployment())
    sites = [site_of(shapes_graph, "separable convolution", "middle_0", f"rank {rank}") for rank in (1, 2)]
    first, second = (whatif._pair(shapes_graph, site, files) for site in sites)
    assert first[0] == second[0]
    assert first[1] != second[1]


def test_variants_in_the_same_words_have_files_of_their_own(
    shapes_graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = whatif._Files(tmp_path, Deployment())
    sites = [site_of(shapes_graph, "separable convolution", "middle_0", f"rank {rank}") for rank in (1, 2)]
    monkeypatch.setattr(Factors, "words", property(lambda _: "reworded"))
    first, second = (whatif._pair(shapes_graph, site, files) for site in sites)
    assert first[1] != second[1]


def test_a_site_that_is_not_there_is_refused_in_words(shapes_graph: Graph, upsampling: Site) -> None:
    gone = replace(upsampling, layers=("classify",), target="classify")
    priced = whatif.price(shapes_graph, [gone, upsampling], Deployment(), Silent())
    assert list(priced.prices) == [upsampling]
    (refusal,) = priced.refusals
    assert refusal.layer == "classify"
    assert "cannot be written" in refusal.reason


def test_what_the_runtime_refuses_is_refused_in_words(
    shapes_graph: Graph, upsampling: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_: object) -> None:
        raise RuntimeFailure("LiteRT crashed")

    monkeypatch.setattr(benchmark, "time_files", crash)
    priced = whatif.price(shapes_graph, [upsampling], Deployment(), Silent())
    assert priced.prices == {}
    assert "cannot be timed: LiteRT crashed" in priced.refusals[0].reason


def test_int8_is_faster_than_float(shapes_graph: Graph) -> None:
    assert 0 < whatif.latency_ms(shapes_graph, INT8) < whatif.latency_ms(shapes_graph, Deployment())


def timed(*rounds_ms: float) -> benchmark.Timing:
    return benchmark.Timing.of("file", rounds_ms)


def test_disturbed_rounds_do_not_count() -> None:
    """Most rounds of the first file lost 4 ms to something else on the machine, and few of the second."""
    first = timed(1.0, 5.0, 5.1, 5.0, 1.1, 5.0, 1.0, 5.2, 1.0, 5.0)
    second = timed(1.4, 1.5, 1.4, 1.5, 1.4, 5.4, 1.5, 1.4, 1.4, 1.5)
    price = whatif.Price.of(first, second)
    assert (price.before_ms, price.after_ms) == pytest.approx((1.0, 1.4))
    assert price.wins == 0.0


def test_a_calm_run_is_its_median() -> None:
    first, second = (
        timed(*(2.0 + 0.01 * index for index in range(9))),
        timed(*(1.0 + 0.01 * index for index in range(9))),
    )
    price = whatif.Price.of(first, second)
    assert (price.before_ms, price.after_ms, price.wins) == (first.median_ms, second.median_ms, 1.0)


@pytest.mark.parametrize(
    ("price", "said"),
    [
        (whatif.Price(2.0, 1.0, wins=0.9), None),
        (whatif.Price(1.0, 2.0, wins=0.9), "no gain"),
        (whatif.Price(2.0, 1.0, wins=0.6), "faster only in 60% of the runs"),
        (whatif.Price(0.030, 0.013), "measured 0.030 ms before and 0.013 ms after, too small a gain for an edit"),
    ],
)
def test_why_an_edit_does_not_pay(price: whatif.Price, said: str | None) -> None:
    reason = price.objection(sure=0.75, worth_ms=0.02)
    assert reason == said or (said is not None and reason is not None and said in reason)
