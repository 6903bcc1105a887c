"""Solvers that restore in a few evaluations of a distilled network: consistency models, LATINO, CM4IR."""
