"""Training photos: where they come from (``sources``) and how they become batches (``photos``)."""

from workbench.data.photos import Photos, loader
from workbench.data.sources import open_source

__all__ = ["Photos", "loader", "open_source"]
