"""What result.json holds, as frozen records: the one source of the reader, the JSON Schema and its documentation."""

from dataclasses import dataclass
from typing import Annotated, Literal


@dataclass(frozen=True, kw_only=True)
class Between:
    """A limit on a number: the reader checks it, the JSON Schema states it."""

    low: float
    high: float | None = None


Share = Annotated[float, Between(low=0, high=1)]
Count = Annotated[int, Between(low=0)]
Seconds = Annotated[float, Between(low=0)]


@dataclass(frozen=True, kw_only=True)
class Model:
    """The model under attack, or in training."""

    spec: Annotated[str, "how the model is named on the command line"]
    parameters: Annotated[int | None, "number of trainable parameters"] = None
    notes: Annotated[tuple[str, ...], "what the loader noticed, such as a model that returns probabilities"] = ()


@dataclass(frozen=True, kw_only=True)
class Data:
    """The inputs that were used."""

    spec: Annotated[str, "how the data set is named on the command line"]
    split: Annotated[str | None, "the part of the data set, such as test"] = None
    rows: Annotated[Count, "number of inputs"]
    classes: Annotated[tuple[str, ...], "class names, in the order of the labels"] = ()
    shape: Annotated[tuple[int, ...], "shape of one input, without the batch"] = ()
    notes: Annotated[tuple[str, ...], "what the loader noticed"] = ()


@dataclass(frozen=True, kw_only=True)
class Threat:
    """What the adversary may do to an input."""

    repr: Annotated[str, "the threat model as it prints in Python"]
    norm: Annotated[str | None, "its geometry, such as Linf"] = None
    eps: Annotated[float | None, "its budget, where one number says it"] = None
    allows: Annotated[str | None, "what the attacker may do, where the threat model has words of its own"] = None


@dataclass(frozen=True, kw_only=True)
class Accuracy:
    """A share of inputs that the model gets right, with its 95 % Wilson interval."""

    accuracy: Annotated[Share, "correct / rows"]
    low: Annotated[Share, "lower end of the 95 % Wilson interval"]
    high: Annotated[Share, "upper end of the 95 % Wilson interval"]
    correct: Annotated[Count, "number of inputs that the model gets right"]
    rows: Annotated[Count, "number of inputs"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One attack of the suite, run on what was still standing before it."""

    attack: Annotated[str, "what the suite calls the attack"]
    recipe: Annotated[str | None, "the attack as it prints in Python"] = None
    source: Annotated[str | None, "the publication"] = None
    entered: Annotated[Count, "inputs that still stood when it began"]
    broke: Annotated[Count, "inputs that it broke"]
    standing: Annotated[Count, "inputs that stood when it ended"]
    robust_accuracy: Annotated[Share, "standing / all inputs"]
    forwards: Annotated[Count, "forward passes, in rows"]
    backwards: Annotated[Count, "backward passes, in rows"]
    checks: Annotated[Count, "forward passes spent on asking once more, in rows"]
    seconds: Annotated[Seconds, "time by the clock"]


@dataclass(frozen=True, kw_only=True)
class CurvePoint:
    """Accuracy at one budget."""

    eps: Annotated[float, "the budget"]
    accuracy: Annotated[Share, "share of inputs still right at this budget"]
    low: Annotated[Share, "lower end of the 95 % Wilson interval"]
    high: Annotated[Share, "upper end of the 95 % Wilson interval"]
    attack: Annotated[str, "the attack that gave the point, or clean"]


@dataclass(frozen=True, kw_only=True)
class Distance:
    """The smallest change that fools, over the inputs that were right; null where so many still stand."""

    lower: Annotated[float | None, "for a quarter of them this is enough"] = None
    median: Annotated[float | None, "for half of them this is enough"] = None
    upper: Annotated[float | None, "for three quarters of them this is enough"] = None
    censored: Annotated[Count, "inputs that no change found here fools"]


@dataclass(frozen=True, kw_only=True)
class ClassResult:
    """Accuracy of one class, clean and under attack."""

    label: Annotated[int, "the label"]
    name: Annotated[str, "the class name"]
    rows: Annotated[Count, "inputs of this class"]
    clean: Annotated[Share | None, "accuracy without attack; null for a class without inputs"] = None
    clean_low: Annotated[Share | None, "lower end of its 95 % Wilson interval"] = None
    clean_high: Annotated[Share | None, "upper end of its 95 % Wilson interval"] = None
    robust: Annotated[Share | None, "accuracy under attack; null for a class without inputs"] = None
    robust_low: Annotated[Share | None, "lower end of its 95 % Wilson interval"] = None
    robust_high: Annotated[Share | None, "upper end of its 95 % Wilson interval"] = None


@dataclass(frozen=True, kw_only=True)
class Statuses:
    """How many inputs ended with each status; the five add up to all inputs."""

    wrong_already: Annotated[Count, "wrong without any attack"]
    robust: Annotated[Count, "right, and no attack broke it"]
    broken: Annotated[Count, "right, and an allowed change made it wrong"]
    out_of_budget: Annotated[Count, "no allowed failure was found before the attacks reached their limit"]
    invalid: Annotated[
        Count, "the attack left the threat model: a defect of the attack, whose verdict counts for nothing"
    ]


@dataclass(frozen=True, kw_only=True)
class Diagnostic:
    """One test of whether the evaluation is sound."""

    id: Annotated[str, "its number, as in the list of the documentation"]
    name: Annotated[str, "its name"]
    verdict: Annotated[str, "PASS, WARN, FAIL or SKIPPED"]
    number: Annotated[float | None, "what was measured"] = None
    measured: Annotated[str, "the same in a sentence"]
    advice: Annotated[str, "what to do; empty where nothing"]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What the whole audit took."""

    forwards: Annotated[Count, "forward passes, in rows"]
    backwards: Annotated[Count, "backward passes, in rows"]
    checks: Annotated[Count, "forward passes spent on asking once more, in rows"]
    seconds: Annotated[Seconds, "time by the clock"]


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where and how the run was made."""

    command: Annotated[str, "the command that runs it again"]
    date: Annotated[str, "when it began, ISO 8601"]
    python: Annotated[str, "version of Python"]
    torch: Annotated[str, "version of torch"]
    platform: Annotated[str, "operating system and machine"]
    device: Annotated[str, "where the model ran"]
    threads: Annotated[int | None, "threads of the processor that torch used"] = None
    identity: Annotated[str | None, "of an audit: settings, data and weights that make it this one"] = None


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """result.json of an audit."""

    schema: Annotated[Literal["adamant.audit/1"], "name and version of this schema"]
    adamant: Annotated[str, "version of adamant that wrote the file"]
    name: Annotated[str, "what a person calls the model"]
    model: Annotated[Model, "the model under attack"]
    data: Annotated[Data, "the inputs"]
    threat: Annotated[Threat, "what the adversary may do"]
    suite: Annotated[str, "name of the suite of attacks"]
    access: Annotated[str | None, "what the attacks saw of the model, as it prints in Python"] = None
    seed: Annotated[int, "the seed of every random draw"]
    clean: Annotated[Accuracy, "accuracy without attack"]
    robust: Annotated[Accuracy, "accuracy under attack: inputs that stand after every attack of the suite"]
    stages: Annotated[tuple[Stage, ...], "the attacks, in the order in which they ran"]
    curve: Annotated[tuple[CurvePoint, ...], "accuracy over the budget"] = ()
    distance: Annotated[Distance, "how small a change suffices"] = Distance(censored=0)
    per_class: Annotated[tuple[ClassResult, ...], "accuracy per class"] = ()
    statuses: Annotated[Statuses, "how the inputs ended"]
    cost: Annotated[Cost, "what it took"]
    diagnostics: Annotated[tuple[Diagnostic, ...], "whether the figures can be trusted"] = ()
    warnings: Annotated[tuple[str, ...], "what a reader must know before trusting the figures"] = ()
    provenance: Annotated[Provenance, "where and how it was run"]


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The state at the end of one epoch of training."""

    epoch: Annotated[int, "the epoch, counted from 1"]
    step: Annotated[Count, "training steps so far"]
    loss: Annotated[float | None, "mean training loss of the epoch; null if it was not finite"] = None
    rate: Annotated[float | None, "learning rate at its end"] = None
    clean: Annotated[Share | None, "validation accuracy without attack; null if it was not measured"] = None
    robust: Annotated[Share | None, "validation accuracy under attack; null if it was not measured"] = None
    seconds: Annotated[Seconds, "time by the clock since the start of training"]


@dataclass(frozen=True, kw_only=True)
class Return:
    """Where a training run went back to an earlier state."""

    step: Annotated[Count, "the step at which it was noticed"]
    why: Annotated[str, "what was wrong, and what was changed"]
    back_to: Annotated[Count, "the step from which the run went on"]


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """result.json of a training run."""

    schema: Annotated[Literal["adamant.training/1"], "name and version of this schema"]
    adamant: Annotated[str, "version of adamant that wrote the file"]
    name: Annotated[str, "what a person calls the model"]
    recipe: Annotated[str, "the recipe as it prints in Python"]
    formula: Annotated[str, "what is minimised"]
    source: Annotated[str | None, "the publication"] = None
    cost_per_step: Annotated[float | None, "cost of one step, in forward passes"] = None
    threat: Annotated[Threat, "what the adversary in training may do"]
    data: Annotated[Data, "the training inputs"]
    model: Annotated[Model, "the model in training"]
    seed: Annotated[int, "the seed of every random draw"]
    epochs: Annotated[tuple[Epoch, ...], "one entry per epoch"]
    validation_rows: Annotated[int | None, "inputs behind each validation accuracy"] = None
    best_epoch: Annotated[int | None, "the epoch whose weights were kept"] = None
    events: Annotated[tuple[Return, ...], "where the run went back, in order"] = ()
    seconds: Annotated[Seconds, "time by the clock"]
    provenance: Annotated[Provenance, "where and how it was run"]
