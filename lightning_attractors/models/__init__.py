"""One LightningModule per family of models."""

from lightning_attractors.models.attractor import AttractorClassifier
from lightning_attractors.models.backbones import ConvBackbone, ResNet18Features, count_nodes
from lightning_attractors.models.backprop_cnn import BackpropCNN
from lightning_attractors.models.base import OPTIMIZATION_SETTINGS, Classifier, OptimizationSettings
from lightning_attractors.models.basin_training import BasinTraining
from lightning_attractors.models.cvfr import CVFR
from lightning_attractors.models.evaluation_mode import evaluating
from lightning_attractors.models.interval_training import IntervalTraining
from lightning_attractors.models.krotov_hopfield import KrotovHopfield
from lightning_attractors.models.nmode import NMODE
from lightning_attractors.models.nonexpansive import NonexpansiveNet
from lightning_attractors.models.nonexpansive_stages import NonexpansiveStages
from lightning_attractors.models.own_field import FieldClassifier
from lightning_attractors.models.prediction import Prediction
from lightning_attractors.models.sa_node import SANODE
from lightning_attractors.models.trades import TRADES
from lightning_attractors.optim import GroupedOptimizer, OneCycle

__all__ = [
    "CVFR",
    "NMODE",
    "OPTIMIZATION_SETTINGS",
    "SANODE",
    "TRADES",
    "AttractorClassifier",
    "BackpropCNN",
    "BasinTraining",
    "Classifier",
    "ConvBackbone",
    "FieldClassifier",
    "GroupedOptimizer",
    "IntervalTraining",
    "KrotovHopfield",
    "NonexpansiveNet",
    "NonexpansiveStages",
    "OneCycle",
    "OptimizationSettings",
    "Prediction",
    "ResNet18Features",
    "count_nodes",
    "evaluating",
]
