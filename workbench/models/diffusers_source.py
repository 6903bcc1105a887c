"""Unconditional ``UNet2DModel`` repositories of diffusers, from the Hub or from a folder, as priors.

The network is diffusers' own. Its scheduler's configuration says what it predicts at which noise level; nothing of the
scheduler is run but its table of levels.
"""

import inspect
import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from workbench.models.adapters import VEScore, VPNoise
from workbench.models.files import about, check_finite, check_names, optional_package, sha256
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


def load_diffusers(source: str | Path, *, step: str | None = None) -> Prior:
    """A prior from a repository in the layout of diffusers.

    Args:
        source: a folder, or USER/NAME[@REVISION] on the Hub: with ``unet`` and ``scheduler`` folders, or both in one.
        step: "interpolate" (default) or "nearest", see ``VPNoise``.

    Returns:
        A :class:`VPNoise` (schedulers with betas: DDPM, DDIM, PNDM, ...) or :class:`VEScore` (ScoreSdeVe).

    Raises:
        ValueError: diffusers is not installed; no such folder or repository; latent, conditional or other models and
            schedulers, each with the reason; files that are missing or damaged.
    """
    folder, repository, files = Path(source).expanduser(), None, None
    if not folder.is_dir():
        with about(f"no folder {source}"):
            repository, file, revision = parse(str(source))
            if file:
                raise ValueError(f"a repository of the Hub is USER/NAME without {file}")
        folder, files = _download_configs(repository, revision)
    with about(source):
        network, scheduler = _network_folder(folder), _scheduler(folder)
    library = optional_package("diffusers")
    with about(source):
        config = _defaults(library.UNet2DModel) | _json(network / "config.json")
        _check_network(config)
        adapter = _adapter(library, scheduler, config, step)
        weights = _weights(folder, network, repository, files)
        prior = _prior(adapter, _build(library, weights), config, scheduler, str(source))
    prior.name = (repository or str(folder.resolve())).rpartition("/")[2]
    prior.source = {"repository": str(source), "file": weights.name, "sha256": sha256(weights)}
    return prior


def prior_from_unet(unet: nn.Module, *, scheduler: Any = None, step: str | None = None) -> Prior:
    """A prior of a ``UNet2DModel``, an object of diffusers; the object is used, not a copy.

    Args:
        scheduler: of diffusers, or its configuration, a mapping with ``_class_name``: it says the noise levels.
        step: see :func:`load_diffusers`.

    Raises:
        ValueError: as :func:`load_diffusers`; no scheduler.
    """
    library, found = optional_package("diffusers"), getattr(scheduler, "config", scheduler)
    says = {"_class_name": type(scheduler).__name__, **found} if isinstance(found, Mapping) else {}
    with about(type(unet).__name__):
        if says.get("_class_name") in (None, "dict"):
            raise ValueError("it does not say its noise levels: give scheduler, such as diffusers.DDPMScheduler()")
        settings: Any = unet.config
        config = _defaults(library.UNet2DModel) | dict(settings) | {"_class_name": type(unet).__name__}
        _check_network(config)
        return _prior(_adapter(library, says, config, step), unet, config, says, "an object")


def _prior(
    adapter: Callable[..., Prior], unet: nn.Module, config: dict[str, Any], scheduler: dict[str, Any], source: str
) -> Prior:
    """The prior with its card, in eval mode."""
    # The last block does not downsample.
    multiple = 2 ** (len(config["down_block_types"]) - 1)
    prior = adapter(Sample(unet), channels=config["in_channels"], multiple=multiple, name=type(unet).__name__)
    size = config["sample_size"]
    sides = set(size) if isinstance(size, list | tuple) else {size}
    prior.trained_size = sides.pop() if len(sides) == 1 else None
    prior.card = {
        "network": "UNet2DModel (diffusers)",
        "scheduler": scheduler["_class_name"],
        "source": source,
        "image_size": size,
    }
    return prior.eval().requires_grad_(False)


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


def _weights(folder: Path, network: Path, repository: str | None, files: list[str] | None) -> Path:
    """The file with the weights, downloaded if need be. One format is enough."""
    names = [(network.relative_to(folder) / name).as_posix() for name in WEIGHTS]
    here = [name for name in names if (folder / name).is_file()]
    there = [name for name in names if files is None or name in files]
    if not here and (repository is None or not there):
        raise ValueError(f"no weights: expected {' or '.join(names)}")
    if not here and repository is not None:
        from huggingface_hub import hf_hub_download

        with hub_errors(repository, there[0]):
            # The folder has the name of its commit: configuration and weights are of the same one.
            hf_hub_download(repository, there[0], revision=folder.name, local_files_only=files is None)
    return folder / (here or there)[0]


def _network_folder(folder: Path) -> Path:
    # [null, null] stands for a part that this pipeline goes without.
    index = {name for name, part in _json(folder / "model_index.json").items() if part != [None, None]}
    if index & {"vae", "vqvae", "movq", "image_encoder"}:
        raise ValueError(
            "it is a latent-diffusion pipeline: it denoises an autoencoder's code, not pictures, and cannot be a prior "
            "here"
        )
    if any(name.startswith(("text_encoder", "transformer", "prior")) for name in index):
        raise ValueError("it is a conditional pipeline; only unconditional ones can be priors")
    for place in (folder / "unet", folder):
        if (place / "config.json").is_file():
            return place
    found = ", ".join(sorted(entry.name for entry in folder.iterdir())[:8]) or "nothing"
    raise ValueError(
        "no model there: expected model.safetensors of this package, or unet/config.json or config.json of diffusers, "
        f"found {found}"
    )


def _scheduler(folder: Path) -> dict[str, Any]:
    for place in (folder / "scheduler", folder, folder.parent / "scheduler"):
        config = _json(place / "scheduler_config.json")
        if "_class_name" in config:
            return config
    raise ValueError(
        "it does not say its noise levels: expected scheduler/scheduler_config.json or scheduler_config.json; for "
        "DDPM's linear schedule it is what diffusers.DDPMScheduler().save_pretrained(FOLDER) writes"
    )


def _defaults(kind: Any) -> dict[str, Any]:
    """What a configuration leaves out is as that class, not another, has it by default."""
    return {name: parameter.default for name, parameter in inspect.signature(kind).parameters.items()}


def _json(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{file} is not JSON: {error}") from None
    return content if isinstance(content, dict) else {}


def _check_network(config: dict[str, Any]) -> None:
    kind, channels, returned = config.get("_class_name"), config["in_channels"], config["out_channels"]
    if kind != "UNet2DModel":
        what = "a conditional network" if "Condition" in str(kind) else "another network"
        raise ValueError(f"it holds {what} ({kind}): only an unconditional UNet2DModel can be a prior here")
    if config["class_embed_type"] or config["num_class_embeds"]:
        raise ValueError("it is class-conditional: only unconditional networks can be priors here")
    if channels not in (1, 3):
        raise ValueError(f"it takes {channels} channels, the code of an autoencoder: not a prior of images")
    if returned not in (channels, 2 * channels):
        raise ValueError(
            f"for {channels} channels a network returns {channels}, or {2 * channels} with a learned variance; this "
            f"one returns {returned}"
        )
    if config["time_embedding_type"] == "learned":
        # It is a table of whole steps, without values between them.
        raise ValueError("expected time_embedding_type positional or fourier, found 'learned'")


def _build(library: Any, weights: Path) -> nn.Module:
    """The network with its weights. Raises ValueError if they are missing, damaged or not finite."""
    try:
        net, report = library.UNet2DModel.from_pretrained(
            weights.parent,
            use_safetensors=weights.suffix == ".safetensors",
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:  # diffusers has errors of many kinds for files that are not whole
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{weights} is truncated, damaged or not of this network: {reason}") from None
    check_names(report["missing_keys"], report["unexpected_keys"])
    check_finite(net.state_dict())
    return net


def _adapter(library: Any, scheduler: dict[str, Any], config: dict[str, Any], step: str | None) -> Callable[..., Prior]:
    """The adapter class with what the scheduler says, still without the network."""
    kind = scheduler["_class_name"]
    says = _defaults(getattr(library, kind, object)) | scheduler
    if kind == "ScoreSdeVeScheduler":
        if step is not None:
            raise ValueError(f"a variance-exploding network has no steps, got step={step!r}")
        if config["out_channels"] != config["in_channels"]:
            raise ValueError(f"a score has {config['in_channels']} channels, found {config['out_channels']}")
        # As ScoreSdeVePipeline uses it: images in [0, 1], told sigma, the output is the score.
        levels = {name: says[name] for name in ("sigma_min", "sigma_max")}
        return partial(VEScore, scale_by_sigma=False, centre=False, **levels)
    fourier = config["time_embedding_type"] == "fourier"
    other_levels = says.get("use_flow_sigmas") or says.get("timestep_type") == "continuous"
    has_betas = says.get("beta_schedule") or says.get("trained_betas")
    if not has_betas or kind.startswith(FOREIGN) or fourier or other_levels:
        raise ValueError(
            f"what a network of {kind} means is not known here: expected a scheduler with betas (DDPM, DDIM, PNDM, "
            "...) and positional time embedding, or ScoreSdeVeScheduler"
        )
    prediction = says.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise ValueError(f"expected prediction_type {', '.join(PREDICTIONS)}, found {prediction!r}")
    alphas = _alphas_cumprod(library, says)
    return partial(VPNoise, alphas_cumprod=alphas, prediction=PREDICTIONS[prediction], step=step or "interpolate")


def _alphas_cumprod(library: Any, says: dict[str, Any]) -> Tensor:
    """(T,) float64, from diffusers' own betas, but multiplied in double precision: its product is rounded to single."""
    settings = {key: says[key] for key in BETAS if says.get(key) is not None}
    try:
        betas = library.DDPMScheduler(**settings).betas
    except (NotImplementedError, TypeError, RuntimeError, ValueError) as error:
        # An unknown schedule, numbers of another type, sizes that cannot be: it checks none of them itself.
        raise ValueError(f"DDPMScheduler of diffusers has no such noise schedule: {error}") from None
    alphas = torch.cumprod(1 - betas.double(), 0)
    if float(alphas.min()) <= 0:
        raise ValueError("its last step is pure noise (rescale_betas_zero_snr), which has no finite level")
    return alphas
