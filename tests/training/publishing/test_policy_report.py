"""A context-dependent order in words, as JSON and as a picture, seen in rows that the model generates."""

import json
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor

from tests.model.artifacts import random_transformer, table_tokenizer, text_tokenizer
from unveil.model.decoding.canvas import Reveal
from unveil.model.denoiser import Prediction
from unveil.training.publishing.order_account import describe_order
from unveil.training.publishing.picture import new_figure, png, svg
from unveil.training.publishing.policy_picture import heat_map
from unveil.training.publishing.policy_report import PolicyOrder, as_json, example_words, in_words, look_at_policy

TOKENIZER = table_tokenizer()  # age, workclass, income, hours, rate
INCOME = 2


def _chooser(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
    """Income first; where it has the first level, left to right from there, else right to left."""
    B, L = tokens.shape
    sizes = torch.tensor(TOKENIZER.vocabulary_sizes)
    logits = torch.zeros(B, L, int(sizes.max())).masked_fill(
        torch.arange(int(sizes.max())) >= sizes[:, None], -torch.inf
    )
    is_first = (tokens[:, INCOME] == 0)[:, None]
    order = torch.where(is_first, -1.0, 1.0) * 50.0 * torch.arange(L)
    order[:, INCOME] = 500.0
    return Prediction(logits, order)


@pytest.fixture(scope="module")
def order() -> PolicyOrder:
    return look_at_policy(_chooser, TOKENIZER)


def test_the_shares_say_when_each_position_is_revealed(order: PolicyOrder) -> None:
    assert order.names[0] == "income"
    assert order.likeliest[0].mean == order.likeliest[0].low == order.likeliest[0].high == 1
    torch.testing.assert_close(order.share.sum(0), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(order.share.sum(1), torch.ones(5, dtype=torch.float64))
    age = order.share[order.names.index("age")]
    assert float(age[1] + age[4]) == pytest.approx(1.0)
    assert 0.4 < float(age[1]) < 0.6
    assert order.num_orders == 2
    assert order.order_entropy < 0.01


def test_the_example_rows_are_as_different_as_rows_come(order: PolicyOrder) -> None:
    taken = [[reveal.position for reveal in example] for example in order.examples]
    assert sorted(taken) == [[2, 0, 1, 3, 4], [2, 4, 3, 1, 0]], "there are two orders, so two examples"


def test_the_words_name_every_position_and_the_values_of_the_examples(order: PolicyOrder) -> None:
    words = in_words(order, TOKENIZER)
    assert "took 2 different orders" in words
    assert words.splitlines()[2].split()[1] == "income"
    assert "income = <=50K, age = " in words
    assert "income = >50K, rate = " in words


def test_the_json_has_it_all(order: PolicyOrder) -> None:
    value = json.loads(json.dumps(as_json(order, TOKENIZER), allow_nan=False))
    assert value["kind"] == "contextual"
    assert value["positions"][0]["name"] == "income"
    assert value["positions"][0]["share_by_step"] == [1.0, 0.0, 0.0, 0.0, 0.0]
    assert value["examples"][0][0]["name"] == "income"
    assert len(value["positions"]) == 5


def test_the_heat_map_is_the_same_every_time_and_shows_odd_names(order: PolicyOrder) -> None:
    examples = [*example_words(order, TOKENIZER)[:1], "price_$ = $5 to $9 <&>"]
    picture = heat_map(order, examples, title="$mall: contextual order")
    assert ElementTree.fromstring(picture).tag.endswith("svg")
    assert picture == heat_map(order, examples, title="$mall: contextual order")


def test_an_undecided_policy_has_the_entropy_of_uniform_orders() -> None:
    def undecided(tokens: Tensor, hidden: Tensor, lengths: Tensor) -> Prediction:
        return Prediction(_chooser(tokens, hidden, lengths).token_logits, torch.zeros(tokens.shape))

    order = look_at_policy(undecided, TOKENIZER)
    assert order.order_entropy == pytest.approx(1.0)
    assert order.num_orders == 1, "ties go to the lowest position"
    assert "took one and the same order" in in_words(order, TOKENIZER)
    assert len(order.examples) == 1
    assert order.drawn[0].high == 5


def test_positions_without_names_are_told_by_number() -> None:
    tokenizer = text_tokenizer(length=40, default_length=18)
    account = describe_order(random_transformer(tokenizer, kind="contextual"), tokenizer, name="prose")
    assert "position 17" in account.words
    assert "and 2 more" in account.words
    assert len(account.value["positions"]) == 18
    assert ElementTree.fromstring(account.draw()).tag.endswith("svg")


def test_an_account_is_the_same_every_time() -> None:
    network = random_transformer(TOKENIZER, kind="contextual")
    accounts = [describe_order(network, TOKENIZER, name="people") for _ in range(2)]
    first, second = ((account.words, account.value, account.draw()) for account in accounts)
    assert first == second


def test_pictures_come_as_png_too() -> None:
    figure = new_figure(2, 1)
    figure.add_subplot().set_title("a_$ and a glyph no font has: \U000f0000")
    assert png(figure).startswith(b"\x89PNG")
    assert svg(figure).startswith(b"<?xml")


def test_a_reveal_is_shown_by_its_token(order: PolicyOrder) -> None:
    reveal: Reveal = order.examples[0][0]
    assert example_words(order, TOKENIZER)[0].startswith(f"income = {TOKENIZER.token(INCOME, reveal.token_id)}")
