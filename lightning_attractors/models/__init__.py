"""One LightningModule per family of models."""

from lightning_attractors.models.attractor import AttractorClassifier
from lightning_attractors.models.base import Classifier
from lightning_attractors.models.cvfr import CVFR
from lightning_attractors.models.optimizers import GroupedOptimizer, OneCycle
from lightning_attractors.models.sa_node import SANODE

__all__ = ["CVFR", "SANODE", "AttractorClassifier", "Classifier", "GroupedOptimizer", "OneCycle"]
