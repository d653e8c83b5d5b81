"""Callbacks: certificates, guards and pictures. All work in any Lightning project unless they say otherwise."""

from lightning_attractors.callbacks.finite import FiniteLoss
from lightning_attractors.callbacks.pictures import AttractorPictures
from lightning_attractors.callbacks.stability import StabilityCertificate, UnstableError

__all__ = ["AttractorPictures", "FiniteLoss", "StabilityCertificate", "UnstableError"]
