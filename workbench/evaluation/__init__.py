"""Measures: metrics of one image, distances of sets of images, paired statistics, samplers against known posteriors."""
