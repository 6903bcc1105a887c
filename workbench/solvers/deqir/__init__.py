"""DeqIR (Cao et al. 2024): the whole sampling chain as one fixed point, and gradients to its initial noise."""
