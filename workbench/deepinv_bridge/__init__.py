"""deepinv and the workbench, in each other's loops: denoisers and operators of either library in the other (0.5.0).

=================================  =================================================================================
:func:`prior_from_deepinv`         a deepinv denoiser, or the name of one, as a prior
:func:`operator_from_deepinv`      a linear deepinv physics as an operator: their A and its adjoint, our prox and pinv
:func:`denoiser_for_deepinv`       a prior as a deepinv denoiser
:func:`physics_for_deepinv`        an operator as a deepinv physics: our adjoint, pinv and prox
=================================  =================================================================================

Images are (B, C, H, W), nominal range [0, 1], and sigma a standard deviation in the same unit, on both sides.
:class:`RAMEstimator` shows deepinv's RAM to UD2M. deepinv is optional and slow to import, so that it is imported when
one of them is called.
"""

from workbench.deepinv_bridge.denoisers import denoiser_for_deepinv, prior_from_deepinv
from workbench.deepinv_bridge.physics import operator_from_deepinv, physics_for_deepinv
from workbench.deepinv_bridge.ram import RAMEstimator

__all__ = ["RAMEstimator", "denoiser_for_deepinv", "operator_from_deepinv", "physics_for_deepinv", "prior_from_deepinv"]
