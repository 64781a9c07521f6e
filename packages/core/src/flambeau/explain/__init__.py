"""Why a model says what it says: attributions for any model and any number that it gives.

Names and arguments are those of captum. A method is built for a model and asked for the attributions of a batch; the
model's mode, its parameters and their gradients stay as they were.

>>> import flambeau
>>> from flambeau import explain, nn
>>> model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
>>> x = flambeau.randn(2, 4)
>>> attributions, error = explain.IntegratedGradients(model).attribute(x, target=1, return_convergence_delta=True)
>>> attributions.shape, bool(error.abs().max() < 1e-4)
(flambeau.Size([2, 4]), True)
"""

from .attention import AttentionRollout, attention_maps, attention_rollout
from .draw import heat_map, overlay, tokens_html
from .forward import Region
from .gradient import GuidedBackprop, InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from .layer import LayerGradCam, LayerGradCamPlusPlus, LayerIntegratedGradients, deepest_layer
from .perturbation import FeatureAblation, Occlusion

__all__ = [
    "AttentionRollout",
    "FeatureAblation",
    "GuidedBackprop",
    "InputXGradient",
    "IntegratedGradients",
    "LayerGradCam",
    "LayerGradCamPlusPlus",
    "LayerIntegratedGradients",
    "NoiseTunnel",
    "Occlusion",
    "Region",
    "Saliency",
    "attention_maps",
    "attention_rollout",
    "deepest_layer",
    "heat_map",
    "overlay",
    "tokens_html",
]
