"""Batches of notebooks: pipeline files (``schema``), running them (``engine``), one job (``job``), a job as a script.

What a job notebook calls is exported here; the rest needs libraries that a machine which only trains may lack.
"""

from workbench.pipelines.job import folder_of, input_path, input_source, needed, progress, training_photos, write_result

__all__ = ["folder_of", "input_path", "input_source", "needed", "progress", "training_photos", "write_result"]
