"""One self-contained HTML file from a pipeline's results."""
