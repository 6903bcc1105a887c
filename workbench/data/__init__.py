"""Training photos: where they come from (``sources``) and how they become batches (``photos``, ``crops``)."""

from workbench.data.crops import CropPool, InTurn, Stock
from workbench.data.photos import Photos, loader
from workbench.data.sources import open_source

__all__ = ["CropPool", "InTurn", "Photos", "Stock", "loader", "open_source"]
