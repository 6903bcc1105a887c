# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # Samples of priors
#
# Images out of nothing but noise, by the predictor-corrector sampler of score_sde, the same noise for every prior:
# MUPET's Table I. How close they are to photos is said by FID where its network's weights are at hand, else by the
# Fréchet distance of EfficientNet-Lite0, and by three plain figures everywhere: brightness, contrast and power spectrum.

# %% tags=["parameters"]
priors: dict[str, str] = {"prior": "photo"}  # label -> what `load_prior` takes
prior_settings: dict[str, dict] = {}  # label -> such as {"weights": "raw"}
count: int = 16  # samples of each prior
size: int = 32  # side in pixels
steps: int = 50  # noise levels; each takes two network evaluations
snr: float = 0.16  # of the corrector: 0.16 for 32x32 pixels, 0.075 for 256x256
batch_norms: bool = False  # one corrector step for the whole batch, as the published code does
references: dict[str, list[str]] = {"sample photos": []}  # label -> photos to compare with; []: the sample photos
reference_count: int = 100  # photos of each reference; 0: all there are
cut: str = "tiles"  # how photos become references: "tiles", "halve" or "fit"
short_side: int = 128  # photos are resized to this before they are cut into tiles; 0: not
pictures: int = 16  # samples to show
seed: int = 0
batch: int = 16
device: str = "cpu"

# %%
import matplotlib.pyplot as plt
import torch

from workbench.data.evaluation import evaluation_photos
from workbench.evaluation.fid import fid_record, fid_unavailable
from workbench.evaluation.spectra import differences, power_spectrum
from workbench.images import save_image
from workbench.models import load_prior
from workbench.pipelines import folder_of, input_path, input_source, progress, write_result
from workbench.plots import strip
from workbench.random import stream
from workbench.records import environment
from workbench.solvers import PredictorCorrector
from workbench.text import check_labels

check_labels("prior_settings", prior_settings, "prior", priors)
networks = {
    label: load_prior(input_source(source), device=device, **prior_settings.get(label, {}))
    for label, source in priors.items()
}
for label, network in networks.items():
    print(f"{label}: {network.summary()}")
sampler = PredictorCorrector(steps=steps, snr=snr, batch_norms=batch_norms)

# %% [markdown]
# ## References

# %%
photos = {}
for label, specs in references.items():
    sources = [spec if spec.startswith("hf:") else str(input_path(spec)) for spec in specs]
    photos[label], _ = evaluation_photos(
        sources, count=reference_count or None, size=size, cut=cut, short_side=short_side, seed=seed
    )
    print(f"{label}: {len(photos[label])} images")

# %% [markdown]
# ## Sample
# Sample number k has its own stream of `seed`.

# %%
samples, done = {}, 0
starts = range(0, count, batch)
for label, network in networks.items():
    parts = []
    for start in starts:
        streams = [stream(seed, "sample", number) for number in range(start, min(start + batch, count))]
        like = torch.empty(0, device=device)
        begun = done

        def report(step, begun=begun):
            progress(begun * steps + step.index, len(networks) * len(starts) * steps)

        shape = (len(streams), 3, size, size)
        parts.append(sampler(network, shape, generator=streams, like=like, callback=report).image.cpu())
        done += 1
    samples[label] = torch.cat(parts).clamp(0, 1)

# %%
figure, axes = plt.subplots(1, len(samples), figsize=(3.4 * len(samples), 3.6), squeeze=False)
for (label, images), axis in zip(samples.items(), axes[0]):
    axis.imshow(strip(images[:pictures], columns=4)[0].permute(1, 2, 0))
    axis.set_title(label)
    axis.axis("off")
plt.show()

# %% [markdown]
# ## How close to photos
# FID is the published measure; where its network is absent, EfficientNet-Lite0 gives a Fréchet distance of the same form,
# which is not FID. Both are biased upwards for few samples, so figures compare only at equal numbers. The plain
# figures say whether samples are as bright, as contrasty and as detailed as photos, not whether they look like any. The
# row without a prior compares as many photos with the other photos: what chance alone does.

# %%
reason = fid_unavailable()
rows = []
for reference, originals in photos.items():
    for label, images in samples.items():
        distances = {k: round(v, 3) for k, v in fid_record(images, originals).items() if isinstance(v, float)}
        plain = {key: round(value, 4) for key, value in differences(images, originals).items()}
        rows.append({"prior": label, "reference": reference, **distances, **plain})
    some = min(count, len(originals) // 2)  # as many photos as samples, against the other photos
    chance = differences(originals[:some], originals[some:]) if some else {}
    rows.append({"prior": None, "reference": reference, **{k: round(v, 4) for k, v in chance.items()}})
for row in rows:
    print(row)
if reason:
    print(f"FID is {reason}")

# %%
figure, axis = plt.subplots(figsize=(5.5, 3.2), layout="constrained")
for number, (reference, originals) in enumerate(photos.items()):
    style = {"color": "0.5", "linewidth": 3, "linestyle": "-" if number == 0 else ":"}
    spectrum = power_spectrum(originals)
    axis.loglog(range(1, len(spectrum) + 1), spectrum, label=f"photos: {reference}", **style)
for label, images in samples.items():
    axis.loglog(range(1, len(spectrum) + 1), power_spectrum(images), label=label)
axis.set(xlabel="cycles per image", ylabel="power")
axis.spines[["top", "right"]].set_visible(False)
axis.legend(frameon=False)
figure.savefig(folder_of("sample_prior") / "spectrum.png", dpi=110)
plt.show()

# %%
files = []
for number, (label, images) in enumerate(samples.items()):
    files.append({"title": label, "file": f"samples-{number}.png"})
    save_image(strip(images[:pictures], columns=4), folder_of("sample_prior") / files[-1]["file"])
first = next(iter(photos))
files.append({"title": f"photos: {first}", "file": "reference.png"})
save_image(strip(photos[first][:pictures], columns=4), folder_of("sample_prior") / files[-1]["file"])
write_result(
    {
        "samples": {
            "priors": {label: {"name": n.name, "summary": n.summary()} for label, n in networks.items()},
            "count": count,
            "size": size,
            "steps": steps,
            "evaluations": 2 * steps,
            "snr": snr,
            "seed": seed,
            "reference_count": {label: len(images) for label, images in photos.items()},
            "fid_reason": reason,
            "rows": rows,
            "pictures": files,
            "spectrum": "spectrum.png",
            "environment": environment(torch.device(device)),
        }
    }
)
