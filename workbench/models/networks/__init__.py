"""Network architectures under the parameter names of the published checkpoints, and our own U-Net."""
