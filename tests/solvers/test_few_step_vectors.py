"""Consistency models, EDM's samplers, CTM, LATINO and CM4IR: results of the published code reproduced."""

from collections.abc import Callable

import pytest
import torch

from tests.solvers import few_step_losses as losses
from tests.solvers import few_step_runs as runs
from tests.solvers.published_cases import Case
from workbench.models import ConsistencyModel, EDMPrecond
from workbench.solvers.schedules import karras_sigmas
from workbench.trainers import Curriculum

TABLE: list[tuple[Callable[[Case], runs.Pairs], str, list[str]]] = [
    (runs.consistency, "cm_", ["onestep_gauss", "multistep_gauss_cd_ts0_22_39", "multistep_tinynet_cd_ts0_17_39"]),
    (runs.editing, "cm_edit_", ["inpaint_gauss_b14", "superres8_gauss"]),
    (runs.edm, "edm_", ["euler_steps12_gauss", "heun_steps18_gauss", "heun_churn_steps10_tinynet"]),
    (runs.trajectory, "ctm_sample_", ["exact_tinynet_steps4", "gamma05_gauss_ts0_8_17"]),
    (runs.latino, "latino_", ["deblur_pixel", "inpaint_box_pixel", "sr16_pixel", "pro_deblur_latent_tinynet"]),
    (
        runs.cm4ir,
        "cm4ir_",
        [
            *("deblur_fft_s005_gauss", "inpaint80_noisefree_tinynet"),
            *("inpaint_box_s0025_gauss", "sr4_bicubic_svd_s0025_gauss"),
        ],
    ),
    (
        losses.consistency_loss,
        "cm_loss_",
        ["cd_heun_l2_uniform_N18", "ct_l2_uniform_N12", "progdist_l2_truncsnr_N8"],
    ),
    (losses.denoising_loss, "cm_loss_", ["edm_karras"]),
    (losses.trajectory_loss, "ctm_loss_", ["only_h1_uniform_g", "dsm_adaptive_edm_euler_N18_h5"]),
]
ROWS = [pytest.param(run, p + n, id=f"{run.__name__}-{p}{n}") for run, p, names in TABLE for n in names]


@pytest.mark.parametrize(("run", "name"), ROWS)
def test_the_published_result_is_reproduced(shared, run, name):
    case = Case(shared, name)
    for ours, stored in run(case):
        torch.testing.assert_close(ours, stored, atol=case.atol, rtol=0)


def test_scalings_and_the_grid_are_the_published_ones(shared):
    case = Case(shared, "cm_tables_scalings_schedules")
    small = {"sigma_min": 0.005, "sigma_max": 40.0, "sigma_data": 0.3}
    for kind, name, settings in (
        (ConsistencyModel, "boundary_scalings_skip_out_in", runs.RANGE),
        (EDMPrecond, "edm_scalings_skip_out_in", runs.RANGE),
        (ConsistencyModel, "boundary_scalings_sd03_smin001_t_clamped", small),
    ):
        levels = case["t"].clamp(min=0.01) if name.endswith("clamped") else case["t"]
        ours = torch.stack(kind(lambda x, told: x, **settings).scalings(levels))
        torch.testing.assert_close(ours, case[f"output_{name}"], atol=1e-12, rtol=1e-12)
    for count, low, high, rho in ((18, 0.002, 80.0, 7), (40, 0.002, 80.0, 7), (10, 0.01, 10.0, 3)):
        stored = case[f"output_karras_sigmas_n{count}_min{low}_max{high}_rho{rho}"][:-1]
        torch.testing.assert_close(karras_sigmas(count, high, low, rho).float(), stored, atol=0, rtol=3e-6)


@pytest.mark.parametrize(
    ("name", "curriculum"),
    [
        ("adaptive_progressive_CT_cifar_like_0.9_2_150_800000", Curriculum(2, 150, 800_000, 0.9, adaptive=True)),
        ("adaptive_progressive_CT_imagenet64_0.95_2_200_800000", Curriculum(2, 200, 800_000, 0.95, adaptive=True)),
        ("fixed_progressive_0.99_10_1280_100000", Curriculum(10, 1280, 100_000, 0.99)),
        ("fixed_fixed_0.95_40", Curriculum(40, decay=0.95)),
        ("fixed_progdist_0.0_4096_1_iter50000", Curriculum(4096, steps=50_000, halving=True)),
    ],
)
def test_curricula_are_the_published_ones(shared, name, curriculum):
    rows = Case(shared, "cm_tables_scalings_schedules")[f"output_ema_scales/{name}"]
    for step, average, levels in rows.tolist():
        assert curriculum.levels(int(step)) == levels
        if not curriculum.halving:  # whose target is the teacher, not an average
            assert curriculum.average(int(step)) == pytest.approx(average, rel=1e-12)
