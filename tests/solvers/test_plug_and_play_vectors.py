"""Results of the published plug-and-play codes, reproduced."""

from collections.abc import Callable

import pytest
import torch

from tests.solvers import plug_and_play_runs as runs
from tests.solvers.published_cases import Case
from workbench.models.gaussian import GaussianPrior
from workbench.operators import Identity
from workbench.operators.inpainting import fill_holes, inverse_distance_kernel
from workbench.solvers import HQS
from workbench.solvers.base import Problem

TABLE: list[tuple[Callable[[Case], runs.Pairs], list[str]]] = [
    (
        runs.dpir,
        [
            *("dpir_deblur_gauss15_s7p65_n8_nox8", "dpir_deblur_levin_s2p55_n8", "dpir_demosaick_n40"),
            *("dpir_sisr2_classical_noisefree_n24", "dpir_sisr3_bicubic_s2p55_n12"),
        ],
    ),
    (runs.pnp_admm, ["pnp_admm_deblur_s2p55_n20_deepinv", "pnp_admm_gfirst_sr2_noisefree_n20_deepinv"]),
    (runs.pnp_pgd, ["pnp_pgd_inpaint50_noisefree_n20_deepinv"]),
    (runs.red_deepinv, ["red_gd_sr2_s2p55_n20_deepinv", "red_pgd_gfirst_deblur_s2p55_n20_deepinv"]),
    (runs.red_published, ["red_fp_uniform9_deblur_fft", "red_sd_uniform9_deblur"]),
    (runs.red_inner, ["red_fp_downscale3_inner20"]),
    (runs.red_admm, ["red_admm_gauss1p6_deblur_fft_alpha2"]),
    (
        runs.pnpreg,
        [
            *("pnpreg_completion20_adam_x8_n40", "pnpreg_completion30_plain_gd_n100"),
            *("pnpreg_deblur_adam_s2p55_n40", "pnpreg_sr2_bicubic_adam_noisefree_n40"),
        ],
    ),
]


@pytest.mark.parametrize(("reproduce", "name"), [(run, name) for run, names in TABLE for name in names])
def test_stored_runs_are_reproduced(shared, reproduce, name):
    case = Case(shared, name)
    # RED's own runs are float64 throughout: their file says 1e-8 for an implementation in float64.
    tolerance = 1e-8 if name.startswith("red_") and "deepinv" not in name else case.atol
    for ours, stored in reproduce(case):
        torch.testing.assert_close(ours.double(), stored.double(), atol=tolerance, rtol=0)


def test_the_schedules_of_dpir(shared):
    """All published ones but for the mixes with evenly spaced levels, which none of the main programs uses."""
    case = Case(shared, "dpir_schedules_and_shepard")
    prior = GaussianPrior(torch.ones(1, 2, 2), torch.zeros(1))
    y = torch.zeros(1, 1, 2, 2, dtype=torch.float64)
    for name, settings in case.info["settings"].items():
        if settings.get("w", 1.0) != 1.0:
            continue
        number = name[-2:] if name.startswith("inpaint") else name[:2]
        stored, lambda_ = (f"output_rho/{number}", 0.23)
        if "lamda" in settings:
            stored, lambda_ = f"output_rho1/{number}", 1 / settings["lamda"]
        if name.startswith("inpaint"):
            stored, lambda_ = f"output_inpaint_rho/{number}", 1 / 3
        solver = HQS(
            max_steps=settings["iter_num"],
            sigma_start=settings.get("modelSigma1", 49) / 255,
            sigma_end=settings["modelSigma2"] / 255,
            lambda_=lambda_,
        )
        problem = Problem(
            y, Identity(), prior, torch.tensor([settings["sigma"]], dtype=torch.float64), torch.zeros_like
        )
        levels, weights = solver.schedule(problem)
        torch.testing.assert_close(weights[:, 0], case[stored].double(), atol=0, rtol=2e-6)
        if "lamda" not in settings:
            expected = case[stored.replace("rho", "sigma")].double()
            torch.testing.assert_close(levels[:, 0], expected, atol=case.atol, rtol=0)


def test_holes_are_filled_as_shepard_does(shared):
    """The published window of 5 ends one pixel early below and to the right, and the image's last row and column are
    not used: zeros in the kernel and in the mask here."""
    case = Case(shared, "dpir_schedules_and_shepard")
    image, mask = case["shepard/image"].permute(2, 0, 1)[None].double(), case["shepard/mask"][None, None].double()
    kernel, used = inverse_distance_kernel(radius=2, power=case.info["shepard"]["p"]), mask.clone()
    kernel[-1], kernel[:, -1] = 0, 0
    used[..., -1, :], used[..., -1] = 0, 0
    filled = torch.where(mask > 0, image, fill_holes(image, used, kernel))
    stored = case["output_shepard"].permute(2, 0, 1)[None].double()
    torch.testing.assert_close(filled, stored, atol=case.atol, rtol=0)
    nothing = fill_holes(torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4))
    torch.testing.assert_close(nothing, torch.full_like(nothing, 0.5))
