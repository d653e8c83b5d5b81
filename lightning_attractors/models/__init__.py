"""One LightningModule per family of models."""

from lightning_attractors.models.attractor import AttractorClassifier
from lightning_attractors.models.base import Classifier
from lightning_attractors.models.optimizers import GroupedOptimizer, OneCycle
from lightning_attractors.models.sa_node import SANODE

__all__ = ["SANODE", "AttractorClassifier", "Classifier", "GroupedOptimizer", "OneCycle"]
