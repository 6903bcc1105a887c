"""RePaint: sample the prior, putting the data back at every level, and go back and forth (Lugmayr et al. 2022).

In variance-exploding coordinates one way down from level ``s`` to ``s'`` is the ancestral step of the prior

    x' = D + (s'/s)^2 (x - D) + s' sqrt(1 - (s'/s)^2) n

after which what the data see is that of a noised reference: ``x'' = A^+ (y + s' noise) + (I - A^+ A) x'``. For a mask
this is the paper's eq. (8); for super-resolution it is ILVR (Choi et al. 2021, eq. 7-8), whose low-pass filter is ``A^+
A``; any other linear operator will do. The way back up adds noise: ``x + sqrt(s^2 - s'^2) n``.

Neither paper has noisy data. Their images take the step of DDNM+ (Wang et al. 2023, section 3.3) instead, which keeps
count of the noise that the data bring: put back with the weight of the proximal step, it adds up from level to level.
On six crops of 64x64 (BSDS500 ``train``) ILVR has 25.5 dB with it on pure noise of 0.2, else 20.1; with noise 0.05 and
half of the pixels missing 24.7 and 22.2, behind ``blur:2`` 21.7 and 10.3; RePaint is as good or better by up to 5 dB.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from workbench.limits import Count
from workbench.solvers.base import Iterate, Problem, Sampler
from workbench.solvers.null_space import Transition, chosen, replaced, transition
from workbench.solvers.zero_shot.ddnm import travel

NOISY_ETA = 0.85  # share of fresh noise in the step of noisy data, DDNM's


@dataclass(frozen=True)
class RePaint(Sampler, name="repaint"):
    """Replacement of what the data see, with resampling.

    Attributes:
        steps: noise levels; 250 in the paper.
        travel_length, travel_repeat: every ``travel_length`` levels go back that far and come again,
            ``travel_repeat`` times in all, which lets the unseen part fit the seen one; 10 and 10 in the paper. About
            ``steps * travel_repeat`` evaluations.
        schedule: "vp" (published), "geometric", "karras", or the steps + 1 levels; see ``sampling_sigmas``.
    """

    summary: ClassVar[str] = "samples the prior, putting the data back at each level, with resampling; for masks"
    paper: ClassVar[str] = "Lugmayr et al. 2022"

    steps: Count = 50
    travel_length: Count = 5
    travel_repeat: Count = 4
    schedule: str | Sequence[float] = "vp"

    def iterate(self, p: Problem) -> Iterator[Iterate]:
        """One draw of noise for the start; two on a way down, the prior's and the reference's; one on a way up."""
        moves = travel(self.steps, self.travel_length, self.travel_repeat)
        total = sum(after > before for before, after in moves)
        levels = p.levels(self.schedule, self.steps)
        put_back = self._step(p)
        x = p.grey + levels[0] * p.draw(p.grey)
        for before, after in moves:
            sigma, lower = levels[before], levels[after]
            if after < before:
                x = x + math.sqrt(lower**2 - sigma**2) * p.draw(x)
                continue
            clean, kept = p.prior(x, sigma), lower / sigma
            noise = kept * (x - clean) / sigma + math.sqrt(1 - kept**2) * p.draw(x)
            x = put_back(clean, noise, p.draw(x), lower)
            yield Iterate(x, sigma, clean, total)

    @staticmethod
    def _step(p: Problem) -> Transition:
        exact = p.sigma_noise == 0
        noise_free = replaced(p.op, p.y, torch.zeros_like(p.sigma_noise), eta=0.0)
        if bool(exact.all()):
            return noise_free
        return chosen(exact, noise_free, transition(p.op, p.y, p.sigma_noise, NOISY_ETA))


@dataclass(frozen=True)
class ILVR(RePaint, name="ilvr"):
    """Refinement of an unconditional sampler, for super-resolution (Choi et al. 2021): RePaint without going back.

    The low-pass filter of the paper is ``A^+ A``, its reference ``A^+ y``. Noise-free by design; noisy data: see above.
    """

    summary: ClassVar[str] = "samples the prior, replacing at each level what super-resolution data know"
    paper: ClassVar[str] = "Choi et al. 2021"

    steps: Count = 100
    travel_length: Count = 1
    travel_repeat: Count = 1
