"""Classifiers that are dynamical systems with planted attractors of certified stability, on Lightning."""
