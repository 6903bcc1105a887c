"""Every adapter against a Gaussian image model, where denoiser, score and noise are known in closed form."""

import pytest
import torch
from torch import Tensor

from workbench.models import EDMPrecond, PlainDenoiser, Prior, VEScore, VPNoise

MEAN, SPREAD = 0.4, 0.3  # x0 ~ N(MEAN, SPREAD^2) per pixel, in [0, 1] units


def posterior_mean(x: Tensor, sigma: Tensor) -> Tensor:
    level = sigma.view(-1, 1, 1, 1)
    return (SPREAD**2 * x + level**2 * MEAN) / (SPREAD**2 + level**2)


class GaussianScore(torch.nn.Module):
    """What a perfect score_sde network returns: sigma times the score, from a [-1, 1] image."""

    def forward(self, u: Tensor, sigma: Tensor) -> Tensor:
        x, level = (u + 1) / 2, sigma.view(-1, 1, 1, 1)
        return level * (MEAN - x) / (SPREAD**2 + level**2)


class GaussianEDM(torch.nn.Module):
    """The preconditioned target ``(D_u - c_skip u) / c_out`` of the Gaussian model, from ``c_in u``."""

    def __init__(self, data: float) -> None:
        super().__init__()
        self.data = data

    def forward(self, scaled: Tensor, s: Tensor) -> Tensor:
        level = s.view(-1, 1, 1, 1)
        total = level**2 + self.data**2
        u = scaled * total.sqrt()
        clean = 2 * posterior_mean((u + 1) / 2, s / 2) - 1
        return (clean - u * self.data**2 / total) / (level * self.data / total.sqrt())


def vp_levels() -> Tensor:
    alphas = VPNoise(torch.nn.Identity()).alphas_cumprod
    return ((1 - alphas) / alphas).sqrt() / 2


class GaussianVP(torch.nn.Module):
    """What a perfect VP network returns, told the level as the schedule has it between steps, and a junk variance."""

    def __init__(self, prediction: str = "noise") -> None:
        super().__init__()
        self.prediction = prediction
        self.logs = vp_levels().mul(2).log()

    def forward(self, state: Tensor, step: Tensor) -> Tensor:
        low = step.double().floor().long().clamp(0, 998)
        log = torch.lerp(self.logs[low], self.logs[low + 1], step.double() - low).to(state.dtype)
        alpha = (1 / (1 + (2 * log).exp())).view(-1, 1, 1, 1)
        mean, spread = 2 * MEAN - 1, 2 * SPREAD
        image = mean + alpha.sqrt() * spread**2 * (state - alpha.sqrt() * mean) / (alpha * spread**2 + 1 - alpha)
        noise = (state - alpha.sqrt() * image) / (1 - alpha).sqrt()
        velocity = alpha.sqrt() * noise - (1 - alpha).sqrt() * image
        predicted = {"noise": noise, "image": image, "velocity": velocity}[self.prediction]
        return torch.cat([predicted, torch.full_like(noise, 1e6)], dim=1)


def vp(**settings) -> VPNoise:
    return VPNoise(torch.nn.Identity(), **settings)


def ask(sigma: float | Tensor, x: object = None) -> Tensor:
    return VEScore(GaussianScore(), multiple=4, name="ours")(torch.rand(2, 3, 4, 4) if x is None else x, sigma)


@pytest.mark.parametrize(
    "prior",
    [VEScore(GaussianScore()), VPNoise(GaussianVP()), EDMPrecond(GaussianEDM(0.5)), PlainDenoiser(posterior_mean)],
    ids=lambda prior: prior.name,
)
def test_denoiser_score_and_noise_are_those_of_the_gaussian(prior: Prior) -> None:
    sigma = torch.tensor([0.02, 0.5, 20.0], dtype=torch.float64)
    x = torch.randn(3, 3, 8, 6, dtype=torch.float64) * 0.5 + 0.5
    expected = posterior_mean(x, sigma)
    level = sigma.view(-1, 1, 1, 1)
    torch.testing.assert_close(prior(x, sigma), expected, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(prior.score(x, sigma), (MEAN - x) / (SPREAD**2 + level**2), rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(prior.noise(x, sigma), (x - expected) / level, rtol=1e-8, atol=1e-8)


def test_vp_steps_are_the_nearest_or_between_two_linear_in_log_noise() -> None:
    prior, levels = VPNoise(torch.nn.Identity(), step="nearest"), vp_levels()
    assert prior.sigma_min == pytest.approx(float(levels[0]))
    assert prior.sigma_max == pytest.approx(78.8, abs=0.1)  # half of the sqrt(1 / abar_999 - 1) = 157.4 of DDPM
    middle = (levels[500] * levels[501]).sqrt()
    steps, scale = prior.conditioning(torch.stack([middle * 0.9999, middle * 1.0001]))
    assert steps.tolist() == [500, 501]
    torch.testing.assert_close(scale, prior.alphas_cumprod[500:502].sqrt())
    sigma = torch.stack([levels[0], levels[500] ** 0.25 * levels[501] ** 0.75, levels[999]])
    steps, scale = VPNoise(torch.nn.Identity()).conditioning(sigma)
    torch.testing.assert_close(steps, torch.tensor([0, 500.75, 999], dtype=torch.float64))
    torch.testing.assert_close(scale, (1 + 4 * sigma**2).rsqrt())  # for its true level


def test_the_schedule_keeps_its_precision_when_the_network_does_not() -> None:
    prior = VPNoise(torch.nn.Linear(2, 2))
    exact = prior.conditioning(torch.tensor([0.0071, 30.0]))
    for changed in (prior.bfloat16(), prior.half(), prior.float()):
        assert changed.alphas_cumprod.dtype == torch.float64
        for a, b in zip(changed.conditioning(torch.tensor([0.0071, 30.0])), exact, strict=True):
            assert torch.equal(a, b)
    assert prior.net.weight.dtype == torch.float32


@pytest.mark.parametrize("prediction", ["noise", "image", "velocity"])
def test_vp_networks_give_the_denoiser_at_any_level_whatever_they_predict(prediction: str) -> None:
    prior = VPNoise(GaussianVP(prediction), prediction=prediction)
    sigma = torch.tensor([0.00713, 0.31, 47.0], dtype=torch.float64)
    x = MEAN + (SPREAD**2 + sigma.view(-1, 1, 1, 1) ** 2).sqrt() * torch.randn(3, 3, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(prior(x, sigma), posterior_mean(x, sigma), rtol=1e-9, atol=1e-9)
    nearest = VPNoise(GaussianVP(prediction), prediction=prediction, step="nearest")
    # The denoiser of a level that is off by up to half a step: 14 % at 0.007, 0.5 % at the others.
    error = (nearest(x, sigma) - posterior_mean(x, sigma)).abs().amax((1, 2, 3)) / sigma.clamp(max=SPREAD)
    assert (error > 1e-6).all()
    assert (error < 0.02).all(), error


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: vp(prediction="score"), "prediction must be one of noise, image, velocity, got 'score'"),
        (lambda: vp(step="round"), "step must be one of interpolate, nearest, got 'round'"),
        (lambda: vp(times=torch.arange(3)), r"times must be of shape \(1000,\), got shape \(3,\)"),
        (lambda: vp(alphas_cumprod=torch.tensor([0.5, 0.9])), "must be a decreasing vector"),
        (lambda: vp(alphas_cumprod=torch.tensor([1.0, 0.5])), "must be between 0 and 1, got 1 to 0.5"),
        (lambda: VEScore(GaussianScore(), sigma_min=0.0), "must be 0 < sigma_min"),
        (lambda: EDMPrecond(GaussianEDM(0.5), sigma_data=0.0), "sigma_data must be positive and finite, got 0"),
        (lambda: PlainDenoiser(posterior_mean, sigma_min=-1.0), "must be 0 <= sigma_min"),
        (lambda: PlainDenoiser(posterior_mean, data_range=5), "data_range must be two numbers, the lower first, got 5"),
        (lambda: PlainDenoiser(torch.nn.Identity())(torch.rand(1, 3, 8, 8), 0.1), "many noise levels, Identity takes"),
        (lambda: PlainDenoiser(None), "net must be a network or a function, .*, got None"),
        (lambda: PlainDenoiser(posterior_mean, channels=0), "channels must be at least 1"),
        (lambda: ask(51.0), "knows noise up to sigma = 50, got 51"),
        (lambda: ask(-0.1), "finite and not negative"),
        (lambda: ask(torch.tensor([0.1, 0.1, 0.1])), r"shape \(2,\), got shape \(3,\)"),
        (
            lambda: ask(0.1, torch.rand(1, 1, 8, 8)),
            r"ours takes colour images \(B, 3, H, W\), got .*1, 1, 8, 8",
        ),
        (lambda: ask(0.1, torch.rand(1, 3, 8, 6)), "multiples of 4, got 8x6"),
        # As whole numbers 0.1 would be 0, and 2 x - 1 beyond 255.
        (
            lambda: ask(0.1, torch.ones(1, 3, 8, 8, dtype=torch.uint8)),
            r"floating-point .*\(uint8: x.float",
        ),
    ],
)
def test_settings_levels_and_images_that_do_not_fit_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("step", ["interpolate", "nearest"])
def test_vp_at_the_ends_of_its_range(step: str) -> None:
    prior, dtype = VPNoise(GaussianVP("noise"), step=step), torch.float32 if step == "nearest" else torch.float64
    sigma = torch.tensor([0.0, prior.sigma_min, prior.sigma_max, 1.0], dtype=dtype)
    x = torch.rand(4, 3, 4, 6, dtype=dtype).transpose(2, 3)  # not contiguous
    together = prior(x, sigma)
    assert bool(together.isfinite().all())
    for index in range(4):
        torch.testing.assert_close(together[index], prior(x[index : index + 1], sigma[index])[0])
    assert torch.equal(prior(x[:1], 0.0), prior(x[:1], prior.sigma_min))
    assert bool(prior.score(x, 0.0).isfinite().all())
