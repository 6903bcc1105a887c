"""Tools for JupyterLab: standard widgets over the figures of ``workbench.plots``; each is one function.

Where widgets do not run (GitHub, nbconvert, papermill, nbval), the output holds what the tool showed at first, a still.
"""

from workbench.widgets.comparison import comparison
from workbench.widgets.operators import operator_explorer
from workbench.widgets.prior import prior_inspector
from workbench.widgets.restoration import restoration_player
from workbench.widgets.training import training_monitor

__all__ = ["comparison", "operator_explorer", "prior_inspector", "restoration_player", "training_monitor"]
