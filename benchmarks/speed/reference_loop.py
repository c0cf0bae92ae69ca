"""The published way to decode a masked diffusion model, written anew as a yardstick: LLaDA's `generate.py` rule.

One full-length forward a step, logits over the whole vocabulary at every position, float64 Gumbel noise over all of
them, a Python loop over the rows, a fixed batch that waits for its last row. Nothing serves with it.
"""

from typing import Literal

import torch
from torch import Tensor

from unveil.model.denoiser import Denoiser

Rule = Literal["confidence", "random"]


@torch.inference_mode()
def reference_decode(
    denoise: Denoiser,
    tokens: Tensor,
    hidden: Tensor,
    lengths: Tensor,
    *,
    rule: Rule,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """Fills every hidden position, one a step and row: ids [B, L], bools [B, L], lengths [B] -> ids [B, L].

    `confidence` reveals where the drawn token is likeliest, `random` anywhere (LLaDA's low-confidence and random
    remasking). Temperature 0 takes the likeliest token and draws no noise.
    """
    tokens, hidden = tokens.clone(), hidden.clone()
    while bool(hidden.any()):
        logits = denoise(tokens, hidden, lengths).token_logits  # [B, L, V]
        drawn = add_gumbel_noise(logits, temperature, generator).argmax(-1)  # [B, L]
        if rule == "confidence":
            sure = logits.to(torch.float64).softmax(-1).gather(-1, drawn[..., None]).squeeze(-1)
        else:
            sure = torch.rand(drawn.shape, generator=generator, dtype=torch.float64, device=drawn.device)
        sure = sure.masked_fill(~hidden, -torch.inf)
        reveal = torch.zeros_like(hidden)
        for row in range(len(tokens)):
            if bool(hidden[row].any()):
                reveal[row, sure[row].topk(1).indices] = True
        tokens, hidden = torch.where(reveal, drawn, tokens), hidden & ~reveal
    return tokens


def add_gumbel_noise(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """`exp(logits) / (-log u)**temperature` in float64, whose largest entry is a draw at that temperature."""
    if temperature == 0:
        return logits
    logits = logits.to(torch.float64)
    uniform = torch.rand(logits.shape, generator=generator, dtype=torch.float64, device=logits.device)
    noise = -uniform.clamp(min=1e-300).log()
    return logits.exp() / noise**temperature
