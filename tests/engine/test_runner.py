"""Models are loaded the smallest first, in pieces, and compute the same warm and unchecked."""

from pathlib import Path

from tests.model.artifacts import table_tokenizer, text_tokenizer, write_artifact
from unveil.engine.catalog import Source
from unveil.engine.messages import Loaded
from unveil.engine.runner import Runner, load_models, load_unchecked
from unveil.model.decoding.canvas import Canvas, SamplingParams


def _sources(folder: Path) -> tuple[Source, Source]:
    """A text model and a smaller one of a table."""
    write_artifact(folder / "words", tokenizer=text_tokenizer())
    write_artifact(folder / "rows", tokenizer=table_tokenizer())
    return Source("words", folder / "words"), Source("rows", folder / "rows")


def _canvas(length: int, seed: int) -> Canvas:
    return Canvas.start((0,) * length, (True,) * length, seed=seed, params=SamplingParams())


def test_the_smallest_is_loaded_first_whatever_their_order_and_others_may_have_the_thread_in_between(
    tmp_path: Path,
) -> None:
    sources = _sources(tmp_path)
    for given in (sources, sources[::-1]):
        found = list(load_models(given, max_batch=4, device="cpu"))
        loaded = [one[0] for one in found if one is not None]
        assert [one.model for one in loaded] == ["rows", "words"]
        assert all(one.is_deterministic for one in loaded)
        assert found.count(None) > 10


def test_an_unchecked_model_computes_what_the_service_computes(tmp_path: Path) -> None:
    for source in _sources(tmp_path):
        warm = _warm(source)
        device, lazy = load_unchecked(source, max_batch=8, device="cpu")
        assert device == "cpu"
        assert lazy.weights_version == warm.weights_version
        for num in (1, 3, 11):
            canvases = [_canvas(5, seed) for seed in range(num)]
            assert lazy.step(canvases) == warm.step(canvases)
            assert [lazy.rank(one) for one in canvases] == [warm.rank(one) for one in canvases]
        assert lazy.counts() == warm.counts()


def _warm(source: Source) -> Runner:
    found = [one for one in load_models([source], max_batch=8, device="cpu") if one is not None]
    ((loaded, runner),) = found
    assert isinstance(loaded, Loaded)
    return runner
