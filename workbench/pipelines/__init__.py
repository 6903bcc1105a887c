"""Batches of notebooks: what a pipeline file says (``schema``), running it (``runner``), one job (``job``)."""

from workbench.pipelines.job import progress, write_result
from workbench.pipelines.schema import Job, Pipeline, load_pipeline

__all__ = ["Job", "Pipeline", "load_pipeline", "progress", "write_result"]
