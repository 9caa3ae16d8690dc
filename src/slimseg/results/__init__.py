"""The results that commands return: frozen dataclasses, with units in the field names.

This folder imports nothing of slimseg except `ratios` and `deployment`. mIoU, IoU, accuracies and agreements are in
percent (0-100), as the field quotes them. All times of one result are scaled to one pace of the machine. Shares,
savings and speed-ups are computed from these times, so that they cannot contradict them.
"""

from slimseg.results.diagnosis import Diagnosis, Finding, Needs, Refusal
from slimseg.results.disturbance import Disturbance
from slimseg.results.evaluation import BesideCPU, Evaluation
from slimseg.results.export import (
    UNKNOWN,
    Artefact,
    Departure,
    ExportResult,
    HeadTrial,
    ModelCard,
    Parity,
    Port,
    Provenance,
)
from slimseg.results.network import BudgetCheck, ModelSummary, SourceFile
from slimseg.results.placement import (
    Compilation,
    LayerDifference,
    LayerPlacement,
    Placement,
    Placements,
    ProcessorState,
    ProcessorStates,
)
from slimseg.results.profile import Fallback, Island, KernelProfile, LayerProfile, NodeType, Profile, Roof, Statistics
from slimseg.results.quantisation import LayerSensitivity, QuantisationResult, QuantisedFile
from slimseg.results.result import Result
from slimseg.results.slim import AppliedEdit, DeployedForm, InputSizeTrial, SlimResult

__all__ = [
    "UNKNOWN",
    "AppliedEdit",
    "Artefact",
    "BesideCPU",
    "BudgetCheck",
    "Compilation",
    "Departure",
    "DeployedForm",
    "Diagnosis",
    "Disturbance",
    "Evaluation",
    "ExportResult",
    "Fallback",
    "Finding",
    "HeadTrial",
    "InputSizeTrial",
    "Island",
    "KernelProfile",
    "LayerDifference",
    "LayerPlacement",
    "LayerProfile",
    "LayerSensitivity",
    "ModelCard",
    "ModelSummary",
    "Needs",
    "NodeType",
    "Parity",
    "Placement",
    "Placements",
    "Port",
    "ProcessorState",
    "ProcessorStates",
    "Profile",
    "Provenance",
    "QuantisationResult",
    "QuantisedFile",
    "Refusal",
    "Result",
    "Roof",
    "SlimResult",
    "SourceFile",
    "Statistics",
]
