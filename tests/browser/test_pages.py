"""The pages `/` and `/docs` in a real Chromium: reveals appear as they stream, nothing comes from elsewhere."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from tests.service.mocks import WAIT_SECONDS, Gate, toy_model
from tests.service.servers import Running, run_toy
from tests.service.test_backtrack import FIELDS, PUZZLE
from unveil.model.tokenizers.grid import GridTokenizer

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"there is no {CHROMIUM}"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=1000 * WAIT_SECONDS)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS, timeout=1000 * WAIT_SECONDS)
        yield browser
        browser.close()


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def server(gate: Gate) -> Iterator[Running]:
    with run_toy(gate=gate) as running:
        yield running


@pytest.fixture
def page(browser: Browser, server: Running) -> Iterator[Page]:
    """A page on which every console error and every request to another host is a failure."""
    page = browser.new_page(base_url=server.url)
    page.set_default_timeout(1000 * WAIT_SECONDS)
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda r: None if r.url.startswith(server.url) else complaints.append(r.url))
    yield page
    page.close()
    assert [text for text in complaints if "status of 422" not in text] == []


def test_reveals_appear_one_by_one_as_they_happen(page: Page, gate: Gate) -> None:
    page.goto("/")
    expect(page.get_by_label("Backtrack")).to_be_hidden()
    page.get_by_label("Prompt").fill('{"age": 39}')
    page.get_by_label("Seed").fill("9223372036854775807")
    page.get_by_role("button", name="Generate").click()
    for revealed in range(4):
        gate.wait()
        expect(page.locator("#canvas li.hidden")).to_have_count(4 - revealed)
        expect(page.locator("#reveals tr")).to_have_count(revealed)
        gate.allow()
    expect(page.get_by_role("status")).to_contain_text("Complete. Seed 9223372036854775807")
    expect(page.locator("#canvas li.known")).to_have_text(["age39"])
    expect(page.locator("#canvas li.new")).to_have_count(4)
    if folder := os.environ.get("UNVEIL_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "play.png")


def test_an_error_names_the_field_and_the_page_goes_on(page: Page, gate: Gate) -> None:
    gate.open()
    page.goto("/")
    page.get_by_label("Prompt").fill('{"age": "old"}')
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_have_text('prompt.age: age must be an integer between 17 and 90, got "old"')
    page.get_by_label("Prompt").fill("{}")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_contain_text("Complete")
    expect(page.locator("#error")).to_be_empty()


def test_stopping_frees_the_place(page: Page, gate: Gate, server: Running) -> None:
    page.goto("/")
    page.get_by_role("button", name="Generate").click()
    gate.wait()
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_role("status")).to_have_text("Stopped.")
    server.wait_for("unveil_requests_running", 0)


def test_the_form_waits_for_the_list_of_models(page: Page, gate: Gate) -> None:
    held: list[Route] = []
    page.route("**/v1/models", lambda route: held.append(route))
    with page.expect_request("**/v1/models"):
        page.goto("/")
    generate, prompt = page.get_by_role("button", name="Generate"), page.get_by_label("Prompt")
    expect(generate).to_be_disabled()
    expect(prompt).to_be_disabled()
    held.pop().fulfill(body="<html>a proxy's page</html>")
    with page.expect_request("**/v1/models"):
        expect(page.get_by_role("status")).to_contain_text("trying again")
    expect(generate).to_be_disabled()
    held.pop().continue_()
    expect(generate).to_be_enabled()
    expect(prompt).to_be_enabled()
    expect(prompt).not_to_have_value("")


@pytest.fixture(scope="module")
def grid() -> Iterator[Running]:
    with run_toy(model=toy_model(tokenizer=GridTokenizer())) as running:
        yield running


def test_what_a_search_takes_back_leaves_the_canvas_and_the_table(browser: Browser, grid: Running) -> None:
    hidden, seed = PUZZLE.count("."), 3
    (sample,) = grid.generate(**{**FIELDS, "num_samples": 1, "order": "learned", "seed": seed}).json()["samples"]
    assert sample["num_unrevealed"] > 0
    page = browser.new_page(base_url=grid.url)
    page.set_default_timeout(1000 * WAIT_SECONDS)
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto("/")
    expect(page.get_by_label("Backtrack")).to_be_visible()
    page.get_by_label("Prompt").fill(PUZZLE)
    page.get_by_label("Seed").fill(str(seed))
    page.get_by_label("Backtrack").fill("10000")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("status")).to_contain_text("Complete. Seed 3")
    expect(page.get_by_role("status")).to_contain_text(f"{sample['num_unrevealed']} reveals taken back")
    expect(page.locator("#canvas li")).to_have_text(list(sample["output"]))
    expect(page.locator("#canvas li.new")).to_have_count(hidden)
    expect(page.locator("#reveals tr")).to_have_count(hidden)
    if folder := os.environ.get("UNVEIL_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "backtrack.png")
    page.get_by_label("Backtrack").fill("many")
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_have_text("backtrack is a whole number")
    page.close()
    assert complaints == []


def test_markup_in_a_prompt_is_shown_as_text(page: Page, gate: Gate) -> None:
    gate.open()
    page.goto("/")
    page.get_by_label("Prompt").fill('{"<img src=x onerror=alert(1)>": 1}')
    page.get_by_role("button", name="Generate").click()
    expect(page.get_by_role("alert")).to_contain_text("<img src=x onerror=alert(1)>")
    assert page.locator("img").count() == 0


def test_every_operation_is_in_the_docs(page: Page) -> None:
    page.goto("/docs")
    for title in ("POST /generate", "POST /order", "GET /v1/models", "GET /health/ready"):
        expect(page.get_by_role("heading", name=title)).to_be_visible()
    expect(page.get_by_text("order_temperature", exact=True).first).to_be_visible()
    if folder := os.environ.get("UNVEIL_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / "docs.png")
