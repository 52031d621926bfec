"""Make any PyTorch model searchable, train it once, search it under a budget, take home a plain model."""
