"""Philox and SplitMix64 against published vectors and plain Python, and what the sampler's noise is keyed by."""

import math

import numpy as np
import pytest
import torch

from unveil.model.decoding.noise import (
    Words,
    order_gumbel,
    order_uniforms,
    philox,
    reveal_noise,
    stream,
    stream_on,
    token_gumbel,
)
from unveil.model.decoding.seeds import DRAWN_SEED_BITS, derive_seed, draw_seed
from unveil.model.order.uniforms import gumbel

CPU = torch.device("cpu")
WORD = 2**64
GAMMA, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
KEYS = [(0, 0), (7, 3), (7, 63), (7, 64), (2**32 + 7, 3), (2**53 - 1, 1023), (2**63 - 1, 5)]  # (seed, position)


def _words(values: tuple[Words, ...]) -> list[int]:
    return [int(value[0]) for value in values]


def _python_philox(counter: tuple[int, int, int, int], seed: int) -> tuple[int, int, int, int]:
    low = 2**32 - 1
    c, k = counter, (seed & low, seed >> 32)
    for _ in range(10):
        p, q = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = ((q >> 32) ^ c[1] ^ k[0], q & low, (p >> 32) ^ c[3] ^ k[1], p & low)
        k = ((k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low)
    return c


def _python_splitmix(state: int, num: int) -> list[int]:
    found = []
    for n in range(1, num + 1):
        z = (state + n * GAMMA) % WORD
        z = (z ^ (z >> 30)) * FIRST % WORD
        z = (z ^ (z >> 27)) * SECOND % WORD
        found.append(z ^ (z >> 31))
    return found


def _uniform(word: int) -> float:
    return ((word >> 12) + 0.5) / 2**52


def _undo_shift(z: int, by: int) -> int:
    found = z
    for _ in range(64 // by):
        found = z ^ (found >> by)
    return found


def _state_before(word: int) -> int:
    """The state whose first word this is: SplitMix64 backwards."""
    z = _undo_shift(word, 31)
    z = _undo_shift(z * pow(SECOND, -1, WORD) % WORD, 27)
    z = _undo_shift(z * pow(FIRST, -1, WORD) % WORD, 30)
    return (z - GAMMA) % WORD


def _python_states_and_values(keys: list[tuple[int, int]]) -> tuple[list[int], list[float]]:
    words = [_python_philox((position, 0, 0, 1), seed) for seed, position in keys]
    return [a << 32 | b for a, b, _, _ in words], [((c << 20 | d >> 12) + 0.5) / 2**52 for _, _, c, d in words]


def _as_int64(states: list[int]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array(states, dtype=np.uint64).view(np.int64)


def test_philox_gives_the_known_answers_of_random123() -> None:
    zero, ones = np.array([0], np.uint64), np.array([0xFFFFFFFF], np.uint64)
    assert _words(philox((zero,) * 4, (zero,) * 2)) == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert _words(philox((ones,) * 4, (ones,) * 2)) == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    pi = [np.array([v], np.uint64) for v in (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344, 0xA4093822, 0x299F31D0)]
    assert _words(philox((pi[0], pi[1], pi[2], pi[3]), (pi[4], pi[5]))) == [
        0xD16CFE09,
        0x94FDCCEB,
        0x5001E420,
        0x24126EA1,
    ]


def test_the_stream_gives_the_known_answers_of_splitmix64() -> None:
    known = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert _python_splitmix(1234567, 5) == known
    assert stream(_as_int64([1234567]), 5).tolist() == [[_uniform(word) for word in known]]


def test_a_reveals_noise_is_that_of_plain_python_for_few_and_for_many() -> None:
    states, values = _python_states_and_values(KEYS)
    for many in (1, 3):  # few are looked up, many are drawn at once
        found = reveal_noise(*map(list, zip(*KEYS * many, strict=True)))
        assert found.states.view(np.uint64).tolist() == states * many
        assert found.values.tolist() == values * many
    for key, state, value in zip(KEYS, states, values, strict=True):
        alone = reveal_noise([key[0]], [key[1]])
        assert (alone.states.view(np.uint64).tolist(), alone.values.tolist()) == ([state], [value])


def test_the_stream_is_that_of_plain_python_in_unsigned_and_in_signed_words() -> None:
    states = [0, 1, 2**63 - 1, 2**63, WORD - 1, *_python_states_and_values(KEYS)[0]]
    expected = [[_uniform(word) for word in _python_splitmix(state, 40)] for state in states]
    assert stream(_as_int64(states), 40).tolist() == expected
    assert stream_on(torch.from_numpy(_as_int64(states)), 40).tolist() == expected
    noise = token_gumbel(_as_int64(states), 40, CPU)
    python = [[-math.log(-math.log(uniform)) for uniform in row] for row in expected]
    assert np.allclose(noise.numpy(), python, rtol=1e-13, atol=1e-15)


def test_the_extremes_of_the_stream_are_finite() -> None:
    lowest, highest = _state_before(0), _state_before(WORD - 1)
    assert _python_splitmix(highest, 1) == [WORD - 1]
    noise = token_gumbel(_as_int64([lowest, highest]), 1, CPU)[:, 0].tolist()
    assert noise == pytest.approx([-math.log(53 * math.log(2)), 53 * math.log(2)])


def test_an_ids_noise_does_not_depend_on_the_width_or_on_the_rows_beside_it() -> None:
    states = reveal_noise(list(range(64)), [5] * 64).states
    whole = token_gumbel(states, 528, CPU)
    for width in (16, 32, 48, 512):
        for rows in (slice(0, 1), slice(7, 8), slice(3, 40)):
            assert torch.equal(token_gumbel(states[rows], width, CPU), whole[rows, :width]), (width, rows)


def test_the_noise_of_tokens_is_gumbel_and_independent_between_ids_positions_and_seeds() -> None:
    seeds, positions = [seed for seed in range(200) for _ in range(50)], list(range(50)) * 200
    found = reveal_noise(seeds, positions)
    noise = token_gumbel(found.states, 32, CPU)
    uniform = torch.exp(-torch.exp(-noise)).view(200, 50, 32)
    n = uniform.numel()
    for power in (1, 2, 3, 4):  # moments of a uniform, with their standard errors
        spread = (1 / (2 * power + 1) - 1 / (power + 1) ** 2) ** 0.5
        assert abs(float((uniform**power).mean()) - 1 / (power + 1)) < 5 * spread / n**0.5
    centred = (uniform - 0.5) * 12**0.5
    pairs = {
        "neighbouring ids": centred[:, :, 1:] * centred[:, :, :-1],
        "neighbouring positions": centred[:, 1:] * centred[:, :-1],
        "neighbouring seeds": centred[1:] * centred[:-1],
        "the next id of the next position": centred[:, 1:, 1:] * centred[:, :-1, :-1],
        "the value": centred * ((torch.from_numpy(found.values) - 0.5) * 12**0.5).view(200, 50, 1),
    }
    for name, products in pairs.items():
        assert abs(float(products.mean())) < 5 / products.numel() ** 0.5, name
    among_ids = torch.corrcoef(centred.view(-1, 32).T) - torch.eye(32, dtype=torch.float64)
    assert float(among_ids.abs().max()) < 5.5 / (200 * 50) ** 0.5


def test_every_part_of_a_key_changes_the_noise() -> None:
    def order(seed: int = 5, step: int = 6, position: int = 7) -> float:
        return float(order_uniforms(*(torch.tensor([part]) for part in (seed, step, position))))

    orders = [order(), order(seed=8), order(seed=5 + 2**32), order(step=9), order(step=6 + 2**32), order(position=10)]
    assert len(set(orders)) == len(orders)
    assert order() == orders[0]
    reveals = [reveal_noise([seed], [position]) for seed, position in ((5, 7), (8, 7), (5 + 2**32, 7), (5, 10))]
    assert len({int(found.states[0]) for found in reveals}) == len({float(r.values[0]) for r in reveals}) == 4
    at_step_0 = (order(step=0), float(reveal_noise([5], [7]).values[0]))  # the purpose alone tells them apart
    assert at_step_0[0] != at_step_0[1]


def test_the_orders_noise_is_a_fixed_function_of_its_key() -> None:
    seeds, steps, positions = torch.tensor([5, 2**63 - 1]), torch.tensor([6, 2**33 + 5]), torch.tensor([7, 40])
    found = order_uniforms(seeds, steps, positions).tolist()
    assert [value.hex() for value in found] == ["0x1.727d5ba5bbd4fp-1", "0x1.6415e1b210b96p-2"]
    words = [_python_philox((7, 6, 0, 0), 5), _python_philox((40, 5, 2, 0), 2**63 - 1)]
    assert found == [((a << 20 | b >> 12) + 0.5) / 2**52 for a, b, _, _ in words]


def test_noise_does_not_depend_on_the_place_in_the_batch() -> None:
    seeds, positions = torch.tensor([3, 2**63 - 1, 3]), torch.arange(40)
    together = order_uniforms(seeds[:, None], torch.tensor([[1], [2], [1]]), positions)
    alone = order_uniforms(seeds[:1, None], torch.tensor([[1]]), positions)
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[0], together[2])


def test_the_uniforms_of_orders_and_of_values_are_uniform_and_independent() -> None:
    seeds, positions = torch.arange(400)[:, None], torch.arange(500)
    order = order_uniforms(seeds, torch.zeros(1, dtype=torch.int64), positions).flatten()
    values = reveal_noise(seeds.expand(-1, 500).flatten().tolist(), positions.tolist() * 400).values
    n = order.numel()
    both = torch.stack([order, torch.from_numpy(values)])
    for found in both:
        assert 0 < float(found.min()) < 1e-4
        assert 1 - 1e-4 < float(found.max()) < 1
        assert abs(float(found.mean()) - 0.5) < 5 * (1 / 12 / n) ** 0.5
    assert abs(float(torch.corrcoef(both)[0, 1])) < 5 / n**0.5


def test_gumbel_noise_reaches_beyond_what_float32_could() -> None:
    extremes = gumbel(torch.tensor([2.0**-53, 1 - 2.0**-53], dtype=torch.float64))
    assert torch.isfinite(extremes).all()
    assert float(extremes[1]) > 36


def test_the_first_sample_has_the_requests_own_seed_and_the_others_have_seeds_that_javascript_can_hold() -> None:
    assert derive_seed(17, 0, 0) == 17
    derived = [derive_seed(17, p, s) for p in range(4) for s in range(4)]
    assert len(set(derived)) == 16
    assert all(0 <= seed < 2**DRAWN_SEED_BITS for seed in derived)
    assert derive_seed(18, 0, 1) != derive_seed(17, 0, 1)
    assert 0 <= draw_seed() < 2**DRAWN_SEED_BITS


def test_remembered_blocks_of_the_orders_noise_are_the_same_numbers() -> None:
    seeds, steps, W = [3, 2**63 - 1, 3], [1, 70, 2**33 + 5], 16
    noise = order_uniforms(torch.tensor(seeds)[:, None], torch.tensor(steps)[:, None], torch.arange(W))
    for _ in range(2):
        assert np.allclose(order_gumbel(seeds, steps, W), gumbel(noise).numpy(), rtol=1e-14)
        for many in (3, 4, 7):  # few are looked up, many are drawn at once
            assert np.array_equal(
                order_gumbel(seeds * many, steps * many, W), np.tile(order_gumbel(seeds, steps, W), (many, 1))
            )
