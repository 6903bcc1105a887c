"""Batches of notebooks: what a pipeline file says (``schema``), running it (``runner``), one job (``job``)."""

from workbench.pipelines.job import input_path, input_source, needed, progress, write_result
from workbench.pipelines.schema import Job, Pipeline, load_pipeline

__all__ = ["Job", "Pipeline", "input_path", "input_source", "load_pipeline", "needed", "progress", "write_result"]
