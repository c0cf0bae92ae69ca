"""Philox against its published vectors, and what the sampler's uniforms are keyed by."""

import numpy as np
import torch

from unveil.model.decoding.noise import Words, order_gumbel, philox, reveal_uniforms, uniforms
from unveil.model.decoding.seeds import DRAWN_SEED_BITS, derive_seed, draw_seed
from unveil.model.order.uniforms import gumbel


def _words(values: tuple[Words, ...]) -> list[int]:
    return [int(value[0]) for value in values]


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


def test_every_part_of_the_key_changes_the_noise() -> None:
    base = {"seeds": 5, "steps": 6, "positions": 7}

    def draw(purpose: str = "order", **changes: int) -> float:
        key = {name: torch.tensor([value]) for name, value in {**base, **changes}.items()}
        first, _ = uniforms(key["seeds"], key["steps"], key["positions"], purpose=purpose)  # type: ignore[arg-type]
        return float(first)

    draws = [draw(), draw("reveal"), draw(seeds=8), draw(seeds=5 + 2**32), draw(steps=9), draw(positions=10)]
    assert len(set(draws)) == len(draws)
    assert draw() == draws[0]


def test_noise_does_not_depend_on_the_place_in_the_batch() -> None:
    seeds, positions = torch.tensor([3, 2**63 - 1, 3]), torch.arange(40)
    together, _ = uniforms(seeds[:, None], torch.tensor([[1], [2], [1]]), positions, purpose="order")
    alone, _ = uniforms(seeds[:1, None], torch.tensor([[1]]), positions, purpose="order")
    assert torch.equal(together[0], alone[0])
    assert torch.equal(together[0], together[2])


def test_uniforms_are_uniform_and_the_two_of_a_call_are_independent() -> None:
    a, b = uniforms(torch.arange(400)[:, None], torch.zeros(1, dtype=torch.int64), torch.arange(500), purpose="reveal")
    n = a.numel()
    for values in (a, b):
        assert 0 < float(values.min()) < 1e-4
        assert 1 - 1e-4 < float(values.max()) < 1
        assert abs(float(values.mean()) - 0.5) < 5 * (1 / 12 / n) ** 0.5
    assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 5 / n**0.5


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


def test_remembered_blocks_are_the_same_numbers() -> None:
    seeds, steps, W = [3, 2**63 - 1, 3], [1, 70, 2**33 + 5], 16
    s, t = torch.tensor(seeds)[:, None], torch.tensor(steps)[:, None]
    noise, _ = uniforms(s, t, torch.arange(W), purpose="order")
    for _ in range(2):
        assert np.allclose(order_gumbel(seeds, steps, W), gumbel(noise).numpy(), rtol=1e-14)
        for many in (3, 4, 7):  # few are looked up, many are drawn at once
            assert np.array_equal(
                order_gumbel(seeds * many, steps * many, W), np.tile(order_gumbel(seeds, steps, W), (many, 1))
            )
    positions = [0, 15, 7]
    token, value = uniforms(s[:, 0], t[:, 0], torch.tensor(positions), purpose="reveal")
    assert reveal_uniforms(seeds, steps, positions, W) == (token.tolist(), value.tolist())
    assert reveal_uniforms(seeds * 5, steps * 5, positions * 5, W) == (token.tolist() * 5, value.tolist() * 5)
    assert reveal_uniforms(seeds, steps, positions, 32) == (token.tolist(), value.tolist())
