"""The noise of a sensor: photons, 200 of them at value 1, and its electronics, whose last rows are worse."""

import torch

from workbench.noise import Noise

rows = torch.full((64,), 0.01)
rows[48:] = 0.08
sensor = Noise(gain=1 / 200, sigma=rows[:, None].expand(3, 64, 64))
