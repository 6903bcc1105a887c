"""Unconditional ``UNet2DModel`` repositories of diffusers, from the Hub or from a folder, as priors.

The network is diffusers' own. Its scheduler's configuration says what it predicts at which noise level; nothing of the
scheduler is run but its table of levels.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from functools import partial
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
# Networks for these have other inputs, outputs or levels, whether or not their configuration has betas.
FOREIGN = ("EDM", "CM", "FlowMatch", "LCM", "TCD", "CogVideoX")
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
    folder, repository, files = Path(source).expanduser(), None, None
    if not folder.is_dir():
        repository, at = _repository(str(source))
        folder, files = _download_configs(repository, revision or at)
    network, scheduler = _network_folder(folder), _scheduler(folder)
    config = _json(network / "config.json")
    _check_network(config, source)
    adapter = _adapter(scheduler, config, step, source)
    if repository is not None:
        _download_weights(repository, folder, network, files)
    prior = adapter(
        Sample(_build(network)),
        channels=config["in_channels"],
        multiple=2 ** (len(config["down_block_types"]) - 1),  # the last block does not downsample
        name=(repository or str(folder.resolve())).rpartition("/")[2],
    )
    size = config.get("sample_size")
    sides = set(size) if isinstance(size, list) else {size}
    prior.trained_size = sides.pop() if len(sides) == 1 else None
    prior.card = {
        "network": "UNet2DModel (diffusers)",
        "scheduler": scheduler["_class_name"],
        "source": str(source),
        "image_size": size,
    }
    weights = _weights(network)
    prior.source = {"repository": str(source), "file": weights.name, "sha256": sha256(weights)}
    return prior.eval().requires_grad_(False)


def _repository(source: str) -> tuple[str, str | None]:
    """Repository and revision of USER/NAME[@REVISION]."""
    try:
        repository, file, at = parse(source)
    except ValueError:
        raise ValueError(f"no folder {source}, and not a repository USER/NAME of the Hub either") from None
    if file:
        raise ValueError(f"no folder {source}, and a repository of the Hub is USER/NAME without {file}")
    return repository, at


def _download_configs(repository: str, revision: str | None) -> tuple[Path, list[str] | None]:
    """Its JSON files, as a folder, and the names of all its files (None without a connection).

    Weights come later: a model that is of no use here is refused before gigabytes of it are fetched.
    """
    from huggingface_hub import snapshot_download

    with hub_errors(repository, "the model"):
        files = repository_files(repository, revision)
        # Without the pattern a cache that lacks any file of the repository, needed or not, counts as incomplete.
        folder = snapshot_download(
            repository, revision=revision, allow_patterns=["*.json"], local_files_only=files is None
        )
    return Path(folder), files


def _download_weights(repository: str, folder: Path, place: Path, files: list[str] | None) -> None:
    names = [(place.relative_to(folder) / name).as_posix() for name in WEIGHTS]
    if any((folder / name).is_file() for name in names):
        return
    found = names if files is None else [name for name in names if name in files]
    if not found:
        raise ValueError(f"{repository} has no weights: expected {' or '.join(names)}")
    from huggingface_hub import hf_hub_download

    with hub_errors(repository, found[0]):
        # One format is enough. The folder has the name of its commit: configuration and weights are of the same one.
        hf_hub_download(repository, found[0], revision=folder.name, local_files_only=files is None)


def _network_folder(folder: Path) -> Path:
    index = _json(folder / "model_index.json")
    # [null, null] stands for a part that this pipeline goes without.
    index = {name: part for name, part in index.items() if part != [None, None]}
    latent = [name for name in ("vae", "vqvae", "movq", "image_encoder") if name in index]
    if latent:
        raise ValueError(
            f"{folder} is a latent-diffusion pipeline ({index.get('_class_name')} with a {latent[0]}): it denoises an "
            "autoencoder's code, not pictures, and cannot be a prior here"
        )
    if any(name.startswith(("text_encoder", "transformer", "prior")) for name in index):
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
        if "_class_name" in config:
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
    needed = [key for key in ("in_channels", "out_channels", "down_block_types") if key not in config]
    if needed:
        raise ValueError(f"{source}: config.json lacks {', '.join(needed)}")
    channels, returned = config["in_channels"], config["out_channels"]
    if channels not in (1, 3):
        raise ValueError(f"{source} takes {channels} channels, the code of an autoencoder: not a prior of images")
    if returned not in (channels, 2 * channels):
        raise ValueError(
            f"{source}: for {channels} channels a network returns {channels}, or {2 * channels} with a learned "
            f"variance; this one returns {returned}"
        )
    if config.get("time_embedding_type") == "learned":
        # It is a table of whole steps, without values between them.
        raise ValueError(f"{source}: expected time_embedding_type positional or fourier, found 'learned'")


def _weights(folder: Path) -> Path:
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} has no weights: expected {WEIGHTS[0]} beside config.json")


def _build(folder: Path) -> nn.Module:
    """The network with its weights. Raises ValueError if they are missing, damaged or not finite."""
    weights = _weights(folder)
    library = _library()
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


def _library() -> Any:
    """The module diffusers; its names are loaded on demand, which type checkers do not see."""
    try:
        import diffusers
    except ImportError as error:
        raise ValueError("diffusers is not installed: pip install 'restoration-workbench[diffusers]'") from error
    return diffusers


def _adapter(
    scheduler: dict[str, Any], config: dict[str, Any], step: str | None, source: str | Path
) -> Callable[..., Prior]:
    """The adapter class with what the scheduler says, still without the network."""
    kind = scheduler["_class_name"]
    if kind == "ScoreSdeVeScheduler":
        return _exploding(scheduler, config, step, source)
    known = inspect.signature(getattr(_library(), kind, object)).parameters
    # What a configuration leaves out is as that scheduler, not another, has it by default.
    says = {name: known[name].default for name in (*BETAS, "prediction_type") if name in known} | scheduler
    fourier = config.get("time_embedding_type") == "fourier"
    other_levels = says.get("use_flow_sigmas") or says.get("timestep_type") == "continuous"
    has_betas = says.get("beta_schedule") or says.get("trained_betas")
    if not has_betas or kind.startswith(FOREIGN) or fourier or other_levels:
        raise ValueError(
            f"{source}: what a network of {kind} means is not known here: expected a scheduler with betas (DDPM, "
            "DDIM, PNDM, ...) and positional time embedding, or ScoreSdeVeScheduler"
        )
    prediction = says.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"{source}: expected prediction_type {', '.join(PREDICTIONS)}, found {prediction!r}")
    return partial(
        VPNoise,
        alphas_cumprod=_alphas_cumprod(says, source),
        prediction=PREDICTIONS[prediction],
        step=step or "interpolate",
    )


def _exploding(
    scheduler: dict[str, Any], config: dict[str, Any], step: str | None, source: str | Path
) -> Callable[..., Prior]:
    if step is not None:
        raise ValueError(f"{source}: a variance-exploding network has no steps, got step={step!r}")
    low, high = scheduler.get("sigma_min", 0.01), scheduler.get("sigma_max", 1348.0)
    if not 0 < low < high < float("inf"):
        raise ValueError(f"{source}: expected 0 < sigma_min < sigma_max, found {low} and {high}")
    if config["out_channels"] != config["in_channels"]:
        raise ValueError(f"{source}: a score has {config['in_channels']} channels, found {config['out_channels']}")
    # As ScoreSdeVePipeline uses it: images in [0, 1], told sigma, the output is the score.
    return partial(VEScore, scale_by_sigma=False, centre=False, sigma_min=low, sigma_max=high)


def _alphas_cumprod(says: dict[str, Any], source: str | Path) -> Tensor:
    """(T,) float64, from diffusers' own betas, but multiplied in double precision: its product is rounded to single."""
    settings = {key: says[key] for key in BETAS if says.get(key) is not None}
    try:
        betas = _library().DDPMScheduler(**settings).betas
    except (NotImplementedError, TypeError, RuntimeError, ValueError) as error:
        # An unknown schedule, numbers of another type, sizes that cannot be: it checks none of them itself.
        reason = str(error).splitlines()[0]
        raise ValueError(f"{source}: DDPMScheduler of diffusers has no such noise schedule: {reason}") from None
    alphas = torch.cumprod(1 - betas.double(), 0)
    if float(alphas.min()) <= 0:
        raise ValueError(f"{source}: its last step is pure noise (rescale_betas_zero_snr), which has no finite level")
    return alphas
