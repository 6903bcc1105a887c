"""Priors: networks, their adapters to one denoiser convention, checkpoints and the registry of shipped weights."""

from workbench.models.adapters import EDMPrecond, PlainDenoiser, VEScore, VPNoise
from workbench.models.check import check_prior
from workbench.models.checkpoint import check_saves, save_prior
from workbench.models.consistency import ConsistencyModel, Flow, TrajectoryModel
from workbench.models.gaussian import GaussianPrior
from workbench.models.laplace import LaplaceIncrements
from workbench.models.load import available_priors, describe_priors, load_prior
from workbench.models.lora import LoRA, save_adapter, start_from
from workbench.models.mixture import GaussianMixturePrior
from workbench.models.networks.adm import ADM, ADMConfig
from workbench.models.networks.ddpm import DDPM, DDPMConfig
from workbench.models.networks.drunet import DRUNet, DRUNetConfig
from workbench.models.networks.ncsnpp import NCSNpp, NCSNppConfig
from workbench.models.networks.unet import UNet, UNetConfig
from workbench.models.prior import Prior
from workbench.models.unfolded import Unfolded, Unfolding
from workbench.models.wrappers import SharedPrior, SplitPrior, TiledPrior, whole_or_tiles

__all__ = [
    "ADM",
    "DDPM",
    "ADMConfig",
    "ConsistencyModel",
    "DDPMConfig",
    "DRUNet",
    "DRUNetConfig",
    "EDMPrecond",
    "Flow",
    "GaussianMixturePrior",
    "GaussianPrior",
    "LaplaceIncrements",
    "LoRA",
    "NCSNpp",
    "NCSNppConfig",
    "PlainDenoiser",
    "Prior",
    "SharedPrior",
    "SplitPrior",
    "TiledPrior",
    "TrajectoryModel",
    "UNet",
    "UNetConfig",
    "Unfolded",
    "Unfolding",
    "VEScore",
    "VPNoise",
    "available_priors",
    "check_prior",
    "check_saves",
    "describe_priors",
    "load_prior",
    "save_adapter",
    "save_prior",
    "start_from",
    "whole_or_tiles",
]
