"""Zero-shot samplers: a diffusion prior and a known forward operator, no training."""
