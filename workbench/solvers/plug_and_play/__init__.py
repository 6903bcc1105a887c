"""Plug-and-play solvers: a data step and a denoiser in turn, each one map for the fixed-point driver."""
