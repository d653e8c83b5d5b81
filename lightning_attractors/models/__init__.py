"""One LightningModule per family of models."""

from lightning_attractors.models.attractor import AttractorClassifier
from lightning_attractors.models.backprop_cnn import BackpropCNN
from lightning_attractors.models.base import Classifier
from lightning_attractors.models.cvfr import CVFR
from lightning_attractors.models.krotov_hopfield import KrotovHopfield
from lightning_attractors.models.optimizers import GroupedOptimizer, OneCycle
from lightning_attractors.models.sa_node import SANODE

__all__ = [
    "CVFR",
    "SANODE",
    "AttractorClassifier",
    "BackpropCNN",
    "Classifier",
    "GroupedOptimizer",
    "KrotovHopfield",
    "OneCycle",
]
