"""Unconditional ``UNet2DModel`` repositories of diffusers, from the Hub or from a folder, as priors.

The network is diffusers' own. Its scheduler's configuration says what it predicts at which noise level; nothing of the
scheduler is run but its table of levels.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.adapters import VEScore, VPNoise
from workbench.models.files import sha256
from workbench.models.hub import hub_errors, parse, repository_files
from workbench.models.prior import Prior

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
PREDICTIONS = {"epsilon": "noise", "sample": "image", "v_prediction": "velocity"}
# What a scheduler's configuration says of its noise levels.
BETAS = ("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr")


class Sample(nn.Module):
    """``unet(x, t).sample``: the network without diffusers' output object."""

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet

    def forward(self, x: Tensor, conditioning: Tensor) -> Tensor:
        return self.unet(x, conditioning).sample


def load_diffusers(source: str | Path, *, step: str | None = None, revision: str | None = None) -> Prior:
    """A prior from a repository in the layout of diffusers.

    Args:
        source: a folder, or USER/NAME on the Hub: with ``unet`` and ``scheduler`` folders, or both in one.
        step: "interpolate" (default) or "nearest", see ``VPNoise``.
        revision: of a repository on the Hub.

    Returns:
        A :class:`VPNoise` (schedulers with betas: DDPM, DDIM, PNDM, ...) or :class:`VEScore` (ScoreSdeVe).

    Raises:
        ValueError: diffusers is not installed; no such folder or repository; latent, conditional or other models and
            schedulers, each with the reason; files that are missing or damaged.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = _download(str(source), revision)
    network, scheduler = _network_folder(folder), _scheduler(folder)
    config = _json(network / "config.json")
    _check_network(config, source)
    net = Sample(_build(network))
    common: dict[str, Any] = {
        "channels": config["in_channels"],
        "multiple": 2 ** (len(config["down_block_types"]) - 1),
        "name": Path(source).name.partition("@")[0],
    }
    prior = _adapt(net, scheduler, config, step, common, source)
    size = config.get("sample_size")
    prior.trained_size = size if isinstance(size, int) else None
    prior.card = {"network": "UNet2DModel (diffusers)", "scheduler": scheduler.get("_class_name", "")}
    weights = _weights(network)
    prior.source = {"repository": str(source), "file": weights.name, "sha256": sha256(weights)}
    return prior.eval().requires_grad_(False)


def _download(source: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download

    try:
        repository, file, at = parse(source)
    except ValueError:
        raise ValueError(f"no folder {source}, and not a repository USER/NAME of the Hub either") from None
    if file:
        raise ValueError(f"no folder {source}, and a repository of the Hub is USER/NAME without {file}")
    revision = revision or at
    patterns = ["*.json", "unet/*.json", "scheduler/*.json"]
    with hub_errors(repository, "the model"):
        files = repository_files(repository, revision)
        if files is None:  # no connection: what is cached has to do
            return Path(snapshot_download(repository, revision=revision, local_files_only=True))
        for place in ("unet/", ""):
            found = [place + name for name in WEIGHTS if place + name in files]
            patterns += found[:1]  # one format is enough
        return Path(snapshot_download(repository, revision=revision, allow_patterns=patterns))


def _network_folder(folder: Path) -> Path:
    index = _json(folder / "model_index.json")
    latent = [name for name in ("vae", "vqvae", "movq", "image_encoder") if name in index]
    if latent:
        raise ValueError(
            f"{folder} is a latent-diffusion pipeline ({index.get('_class_name')} with a {latent[0]}): it denoises an "
            "autoencoder's code, not pictures, and cannot be a prior here"
        )
    if "text_encoder" in index or "transformer" in index or "prior" in index:
        raise ValueError(
            f"{folder} is a conditional pipeline ({index.get('_class_name')}); only unconditional ones can be priors"
        )
    for place in (folder / "unet", folder):
        if (place / "config.json").is_file():
            return place
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise ValueError(f"{folder} holds no model of diffusers: expected unet/config.json or config.json, found {found}")


def _scheduler(folder: Path) -> dict[str, Any]:
    for place in (folder / "scheduler", folder, folder.parent / "scheduler"):
        config = _json(place / "scheduler_config.json")
        if config:
            return config
    raise ValueError(
        f"{folder} does not say its noise levels: expected scheduler/scheduler_config.json or scheduler_config.json; "
        "for DDPM's linear schedule it is what diffusers.DDPMScheduler().save_pretrained(FOLDER) writes"
    )


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    return content if isinstance(content, dict) else {}


def _check_network(config: dict[str, Any], source: str | Path) -> None:
    kind = config.get("_class_name")
    if kind != "UNet2DModel":
        what = "a conditional network" if "Condition" in str(kind) else "another network"
        raise ValueError(f"{source} holds {what} ({kind}): only an unconditional UNet2DModel can be a prior here")
    if config.get("class_embed_type") or config.get("num_class_embeds"):
        raise ValueError(f"{source} is class-conditional: only unconditional networks can be priors here")
    missing = [name for name in ("in_channels", "down_block_types") if name not in config]
    if missing:
        raise ValueError(f"{source}: its network's config.json does not say {' and '.join(missing)}")
    if config["in_channels"] not in (1, 3):
        raise ValueError(
            f"{source} takes {config['in_channels']} channels, the code of an autoencoder: not a prior of images"
        )


def _weights(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} has no weights: expected {WEIGHTS[0]} beside config.json")


def _build(folder: Path) -> nn.Module:
    """The network with its weights. Raises ValueError if they are missing, damaged or not finite."""
    weights = _weights(folder)
    try:
        import diffusers
    except ImportError as error:
        raise ValueError("diffusers is not installed: pip install 'restoration-workbench[diffusers]'") from error
    library: Any = diffusers  # its names are loaded on demand, which type checkers do not see
    safe = weights.suffix == ".safetensors"
    try:
        net, report = library.UNet2DModel.from_pretrained(
            folder, use_safetensors=safe, local_files_only=True, output_loading_info=True
        )
    except Exception as error:  # diffusers has errors of many kinds for files that are not whole
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{weights} is truncated, damaged or not of this network: {reason}") from None
    if report["missing_keys"] or report["unexpected_keys"]:
        missing, extra = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
        raise ValueError(
            f"{weights}: {len(missing)} tensors missing ({', '.join(missing[:3]) or 'none'}), {len(extra)} left over "
            f"({', '.join(extra[:3]) or 'none'})"
        )
    for name, tensor in net.state_dict().items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(f"{weights}: {name} holds values that are not finite")
    return net


def _adapt(
    net: Sample,
    scheduler: dict[str, Any],
    config: dict[str, Any],
    step: str | None,
    common: dict[str, Any],
    source: str | Path,
) -> Prior:
    kind = scheduler.get("_class_name", "")
    fourier = config.get("time_embedding_type") == "fourier"
    if kind == "ScoreSdeVeScheduler":
        if step is not None:
            raise ValueError(f"{source}: a variance-exploding network has no steps, got step={step!r}")
        levels = {"sigma_min": scheduler.get("sigma_min", 0.01), "sigma_max": scheduler.get("sigma_max", 1348.0)}
        # As ScoreSdeVePipeline uses it: images in [0, 1], told sigma, the output is the score.
        return VEScore(net, scale_by_sigma=False, centre=False, **levels, **common)
    if "beta_schedule" not in scheduler or kind.startswith(("EDM", "CM", "FlowMatch")) or fourier:
        raise ValueError(
            f"{source}: what a network of {kind or 'this scheduler'} means is not known here: expected a scheduler "
            "with betas (DDPM, DDIM, PNDM, ...) or ScoreSdeVeScheduler"
        )
    prediction = scheduler.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"{source}: expected prediction_type {', '.join(PREDICTIONS)}, found {prediction!r}")
    import diffusers

    library: Any = diffusers
    table = library.DDPMScheduler(**{key: scheduler[key] for key in BETAS if scheduler.get(key) is not None})
    # From the betas, in double precision: diffusers' own product is rounded to single.
    alphas = torch.cumprod(1 - table.betas.double(), 0)
    if float(alphas[-1]) <= 0:
        raise ValueError(f"{source}: its last step is pure noise (rescale_betas_zero_snr), which has no finite level")
    return VPNoise(net, alphas_cumprod=alphas, prediction=PREDICTIONS[prediction], step=step or "interpolate", **common)
