"""Models: load them from anywhere, build those of the zoo, and make sure that they return logits."""

from adamant.models.architecture import Architecture
from adamant.models.foreign.jax_models import from_jax
from adamant.models.foreign.tensorflow_models import from_tensorflow
from adamant.models.ghost import Ghost
from adamant.models.http import Endpoint, Json, Patience
from adamant.models.init import count_parameters
from adamant.models.load import load_model, module_of
from adamant.models.logits import as_logits
from adamant.models.onnx import load_onnx
from adamant.models.save import save_model
from adamant.models.scores import BlackBox, LabelsOf, Probabilities, Scores
from adamant.models.wrap import BPDA, Ensemble, Normalised, OneLogit
from adamant.models.zoo import ZOO, build

__all__ = [
    "BPDA",
    "ZOO",
    "Architecture",
    "BlackBox",
    "Endpoint",
    "Ensemble",
    "Ghost",
    "Json",
    "LabelsOf",
    "Normalised",
    "OneLogit",
    "Patience",
    "Probabilities",
    "Scores",
    "as_logits",
    "build",
    "count_parameters",
    "from_jax",
    "from_tensorflow",
    "load_model",
    "load_onnx",
    "module_of",
    "save_model",
]
