"""Gradients of deep random networks: exact simulation by compiled kernels, and what theory predicts."""

from vgp_kernels.activations import ACTIVATIONS, Activation, activation
from vgp_kernels.classifier.weights import WeightGradients, Weights, initial_weights, weight_gradients
from vgp_kernels.diagnosis import diagnose
from vgp_kernels.initialisers import INITIALISERS, Initialiser
from vgp_kernels.network import GradientFlow, Network
from vgp_kernels.propagate import propagate
from vgp_kernels.recurrent.network import GatedFlow, Recurrent, RecurrentFlow
from vgp_kernels.theory.criticality import (
    CriticalPoint,
    critical_point,
    critical_points,
    critical_weight_variance,
    half_stable_points,
    variance_preserving_weight_variance,
)
from vgp_kernels.theory.mean_field import MeanField, mean_field
from vgp_kernels.train import Training, train
from vgp_kernels.transformer.network import Transformer, TransformerFlow

__all__ = [
    "ACTIVATIONS",
    "INITIALISERS",
    "Activation",
    "CriticalPoint",
    "GatedFlow",
    "GradientFlow",
    "Initialiser",
    "MeanField",
    "Network",
    "Recurrent",
    "RecurrentFlow",
    "Training",
    "Transformer",
    "TransformerFlow",
    "WeightGradients",
    "Weights",
    "activation",
    "critical_point",
    "critical_points",
    "critical_weight_variance",
    "diagnose",
    "half_stable_points",
    "initial_weights",
    "mean_field",
    "propagate",
    "train",
    "variance_preserving_weight_variance",
    "weight_gradients",
]
