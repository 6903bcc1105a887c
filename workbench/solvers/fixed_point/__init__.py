"""Fixed points: update rules, one driver for all of them, implicit gradients, and the maps of MAP estimation."""
