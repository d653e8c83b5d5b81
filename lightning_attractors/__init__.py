"""Classifiers that are dynamical systems with planted, provably stable attractors, on PyTorch Lightning."""
