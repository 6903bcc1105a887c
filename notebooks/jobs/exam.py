# ---
# jupyter:
#   kernelspec:
#     name: python3
#     language: python
#     display_name: Python 3 (ipykernel)
# ---

# %% [markdown]
# # A sampler's exam
#
# Samples beside posteriors that are known exactly: Gaussian images, mixtures of four modes, signals with edges.
# `docs/exam.md` says what the figures are.

# %% tags=["parameters"]
sampler: str = "ddrm"  # a solver, or a control: exact, point
settings: dict = {}  # of the solver, where they differ from the defaults
tasks: list[str] = ["mixture-average"]  # of `workbench.exam:TASKS`
repetitions: int = 100  # images and measurements of each task
learned: bool = False  # with a small network trained on the task's prior in place of the exact denoiser
label: str = ""  # in the report; empty: the sampler's name and settings
seed: int = 0

# %%
from dataclasses import asdict

import matplotlib.pyplot as plt

from workbench.exam import make_candidate, make_task, sit, table
from workbench.exam.learned import learn
from workbench.pipelines import folder_of, progress, write_result

candidate = make_candidate(sampler, learned, **settings)
label = label or " ".join([sampler, *(f"{name}={value}" for name, value in settings.items())])
chosen = [make_task(name) for name in tasks]

# %%
grades = []
for task in chosen:
    prior = learn(task.prior, seed=seed) if learned else None
    grades.append(sit(candidate, task, repetitions=repetitions, seed=seed, learned=prior))
    progress(len(grades), len(chosen))
print(table(grades))

# %% [markdown]
# ## Ranks
# Ranks of the truth among the samples along random directions. Even: calibrated. A valley: too narrow; a hill: too wide.

# %%
figure, axes = plt.subplots(1, len(grades), figsize=(2.2 * len(grades), 1.8), squeeze=False, layout="constrained")
for axis, grade in zip(axes[0], grades):
    axis.bar(range(len(grade.ranks)), grade.ranks, width=1.0)
    axis.axhline(repetitions / len(grade.ranks), color="black", linewidth=0.8)
    axis.set(title=grade.task, xticks=[], yticks=[])
    axis.title.set_fontsize(9)
figure.savefig(folder_of("exam") / "ranks.png", dpi=90)
plt.show()

# %%
rows = [asdict(grade) | {"passed": grade.passed} for grade in grades]
write_result({"exam": {"label": label, "sampler": sampler, "settings": settings, "plot": "ranks.png", "rows": rows}})
