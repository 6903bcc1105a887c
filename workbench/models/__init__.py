"""Priors: networks, their adapters to one denoiser convention, checkpoints and the registry of shipped weights."""

from workbench.models.adapters import EDMPrecond, PlainDenoiser, VEScore, VPNoise
from workbench.models.checkpoint import load_checkpoint, save_prior
from workbench.models.ddpm import DDPM, DDPMConfig
from workbench.models.ncsnpp import NCSNpp, NCSNppConfig
from workbench.models.prior import Prior
from workbench.models.registry import PHOTO_CONFIG, available_priors, describe_priors, load_prior

__all__ = [
    "DDPM",
    "PHOTO_CONFIG",
    "DDPMConfig",
    "EDMPrecond",
    "NCSNpp",
    "NCSNppConfig",
    "PlainDenoiser",
    "Prior",
    "VEScore",
    "VPNoise",
    "available_priors",
    "describe_priors",
    "load_checkpoint",
    "load_prior",
    "save_prior",
]
