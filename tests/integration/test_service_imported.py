"""Models trained elsewhere, served: imported by the command, asked over HTTP and without a server, learnt an order."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.model.foreign import FAMILIES, TOKENS, write_folder
from tests.service.servers import Running, events_of, run_artifacts
from unveil import cli
from unveil.model.artifact.folder import load_artifact


def _unveil(*arguments: object) -> int:
    before, sys.argv = sys.argv, ["unveil", *map(str, arguments)]
    try:
        with pytest.raises(SystemExit) as stop:
            cli.main()
    finally:
        sys.argv = before
    code = stop.value.code
    assert isinstance(code, int)
    return code


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("imported")
    for family in FAMILIES:
        write_folder(folder / "sources" / family, family)
        out = folder / "artifacts" / family
        assert _unveil("import", folder / "sources" / family, "--out", out, "--length", 20, "--default-length", 4) == 0
    return folder / "artifacts"


@pytest.fixture(scope="module")
def server(artifacts: Path) -> Iterator[Running]:
    with run_artifacts(checkpoints=artifacts, max_batch=4) as running:
        yield running


def test_they_are_warm_and_deterministic(server: Running) -> None:
    entries = {entry["id"]: entry for entry in server.client.get("/v1/models").json()["data"]}
    assert set(entries) == set(FAMILIES)
    for entry in entries.values():
        assert (entry["domain"], entry["length"], entry["default_length"]) == ("text", 20, 4)
        assert (entry["order"], entry["deterministic"]) == ("uniform", True)
        assert server.generate(model=entry["id"], prompt=entry["example_prompt"], seed=1).status_code == 200


def test_holes_are_filled_and_all_else_comes_back_as_it_was(server: Running) -> None:
    response = server.generate(model="bert", prompt="the cat [MASK:2] on the [MASK].", seed=5, num_samples=3)
    assert response.status_code == 200, response.text
    for sample in response.json()["samples"]:
        assert sample["text"].startswith("the cat")
        assert " on the" in sample["text"]
        assert sample["text"].endswith(".")
        assert sorted(reveal["position"] for reveal in sample["reveals"]) == [2, 3, 6]
        assert not {TOKENS[reveal["token_id"]] for reveal in sample["reveals"]} & {"[MASK]", "[CLS]", "[SEP]", "[UNK]"}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_seed_gives_the_same_alone_in_a_batch_and_streamed(family: str, server: Running) -> None:
    prompt = "ab[MASK:6]c" if family in ("llada", "dream") else "the [MASK:6] mat"
    alone = server.generate(model=family, prompt=prompt, seed=11).json()["samples"][0]
    others = ["[MASK:3]", prompt, "[MASK:12]"]
    seeds = server.generate(model=family, prompt=others, seed=4).json()["samples"]
    again = server.generate(model=family, prompt=prompt, seed=seeds[1]["seed"]).json()["samples"][0]
    assert [again[k] for k in ("text", "reveals", "logprob")] == [seeds[1][k] for k in ("text", "reveals", "logprob")]
    body = {"model": family, "prompt": prompt, "seed": 11, "stream": True}
    with server.client.stream("POST", "/generate", json=body) as response:
        events = list(events_of(response.iter_lines()))
    reveals = [data for event, data in events if event == "reveal"]
    streamed = [{k: v for k, v in reveal.items() if not k.endswith("_index")} for reveal in reveals]
    assert streamed == alone["reveals"]
    assert [data["text"] for event, data in events if event == "sample"] == [alone["text"]]


def test_what_cannot_be_asked_gets_one_line_that_names_the_prompt(server: Running) -> None:
    status, kind, param = server.error(server.generate(model="bert", prompt="the dog [MASK]"))
    assert (status, kind, param) == (422, "invalid_request", "prompt")


def test_the_command_generates_what_the_service_does(server: Running, artifacts: Path, capsys: Any) -> None:
    served = server.generate(model="bert", prompt="the [MASK:3]", seed=3).json()["samples"][0]
    assert _unveil("generate", artifacts / "bert", "the [MASK:3]", "--seed", 3, "--json") == 0
    assert json.loads(capsys.readouterr().out)["samples"][0]["text"] == served["text"]


@pytest.mark.parametrize(
    ("kind", "method"),
    [("global", "global"), ("contextual", "next_cost")],
)
def test_an_order_is_learnt_for_it_and_its_weights_stay(
    kind: str, method: str, artifacts: Path, tmp_path: Path
) -> None:
    lines, out = tmp_path / "lines.txt", tmp_path / "ordered"
    lines.write_text("the cat sat on the mat.\nthe mat.\n" * 20)
    small = ["optimizer.steps=3", "optimizer.batch_size=8", "data.length=12", "run.evaluate_rows=2"]
    chosen = [part for setting in (f"order.method={method}", *small) for part in ("--set", setting)]
    given = ("train", "--lines", lines, "--freeze-denoiser", artifacts / "bert", "--out", out)
    assert _unveil(*given, *chosen) == 0
    before, after = load_artifact(artifacts / "bert"), load_artifact(out)
    assert (after.manifest.length, after.manifest.order.kind) == (12, kind)
    state = after.denoiser.state_dict()
    frozen = before.denoiser.state_dict()
    assert all((state[name] == tensor).all() for name, tensor in frozen.items())
    assert any(not (state[name] == 0).all() for name in state.keys() - frozen.keys())
    assert _unveil("evaluate", out, "--rows", 2, "--json") == 0
    assert _unveil("generate", out, "the [MASK:2]", "--seed", 1) == 0


def test_what_training_cannot_do_with_it_is_said_in_one_line(artifacts: Path, tmp_path: Path, capsys: Any) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("the cat\nthe dog\nthe mat\na\n")
    assert _unveil("train", "--freeze-denoiser", artifacts / "bert", "--out", tmp_path / "x") == 1
    assert "trained elsewhere, on data it does not name; give it --lines FILE or a recipe" in capsys.readouterr().err
    given = ("train", "--lines", lines, "--freeze-denoiser", artifacts / "bert", "--out", tmp_path / "x")
    assert _unveil(*given) == 1
    assert f'{lines} line 2: the model does not know "dog"' in " ".join(capsys.readouterr().err.split())
    lines.write_text("the cat\n" * 5)
    assert _unveil(*given, "--set", "model.width=8") == 1
    assert "model: start.artifact is an imported model" in capsys.readouterr().err
    assert _unveil("train", "--lines", lines, "--out", tmp_path / "x") == 1
    assert "start.artifact: data.kind lines needs one, for its tokenizer" in capsys.readouterr().err
    assert _unveil("import", tmp_path, "--out", tmp_path / "y", "--tokenizer", "words") == 2
    assert "--tokenizer: must be auto or smiles" in capsys.readouterr().err


def test_a_hub_is_asked_only_if_the_user_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    import huggingface_hub

    asked = []

    def fetched(name: str, *, allow_patterns: list[str]) -> str:
        asked.append((name, allow_patterns))
        write_folder(tmp_path / "cache", "bert")
        return str(tmp_path / "cache")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    assert _unveil("import", "someone/bert", "--out", tmp_path / "a") == 1
    assert "no such folder; a model of the hub is taken with --hub" in capsys.readouterr().err
    assert asked == []
    assert _unveil("import", "someone/bert", "--hub", "--out", tmp_path / "a") == 0
    assert asked[0][0] == "someone/bert"
    assert not [pattern for pattern in asked[0][1] if pattern.endswith((".bin", ".py"))]

    def fails(name: str, **_: object) -> str:
        raise OSError("no network\nat all")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fails)
    assert _unveil("import", "someone/bert", "--hub", "--out", tmp_path / "b") == 1
    assert "--hub someone/bert: could not be fetched (no network at all)" in capsys.readouterr().err
