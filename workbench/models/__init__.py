"""Priors: networks, their adapters to one denoiser convention, checkpoints and the registry of shipped weights."""

from workbench.models.adapters import EDMPrecond, PlainDenoiser, VEScore, VPNoise
from workbench.models.checkpoint import save_prior
from workbench.models.gaussian import GaussianPrior
from workbench.models.laplace import LaplaceIncrements
from workbench.models.load import available_priors, describe_priors, load_prior
from workbench.models.mixture import GaussianMixturePrior
from workbench.models.networks.adm import ADM, ADMConfig
from workbench.models.networks.ddpm import DDPM, DDPMConfig
from workbench.models.networks.drunet import DRUNet, DRUNetConfig
from workbench.models.networks.ncsnpp import NCSNpp, NCSNppConfig
from workbench.models.networks.unet import UNet, UNetConfig
from workbench.models.prior import Prior
from workbench.models.wrappers import SharedPrior, SplitPrior, TiledPrior, whole_or_tiles

__all__ = [
    "ADM",
    "DDPM",
    "ADMConfig",
    "DDPMConfig",
    "DRUNet",
    "DRUNetConfig",
    "EDMPrecond",
    "GaussianMixturePrior",
    "GaussianPrior",
    "LaplaceIncrements",
    "NCSNpp",
    "NCSNppConfig",
    "PlainDenoiser",
    "Prior",
    "SharedPrior",
    "SplitPrior",
    "TiledPrior",
    "UNet",
    "UNetConfig",
    "VEScore",
    "VPNoise",
    "available_priors",
    "describe_priors",
    "load_prior",
    "save_prior",
    "whole_or_tiles",
]
