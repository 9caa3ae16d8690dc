"""What a network's input and output mean, which its nodes do not say: carried with the Graph into every artefact."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from slimseg.errors import ModelError, one_line, printable
from slimseg.graph.preprocessing import Preprocessing

OutputKind = Literal["logits", "probabilities", "mask"]
OUTPUT_KINDS: tuple[OutputKind, ...] = ("logits", "probabilities", "mask")


@dataclass(frozen=True)
class Description:
    """Preprocessing, class names and the meaning of the output.

    `output_kind`: "logits" and "probabilities" have the shape (N, classes, h, w), or (N, 1, h, w) for the logit or
    probability of the second of two classes; "mask" is class indices (N, h, w).
    """

    preprocessing: Preprocessing = field(default_factory=Preprocessing)
    classes: tuple[str, ...] = ()
    output_kind: OutputKind = "logits"

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Description:
        """Parse what `to_json` wrote.

        Raises:
            ModelError: the text is not such a description.
        """
        try:
            raw: dict[str, Any] = json.loads(text)
            if raw["output_kind"] not in OUTPUT_KINDS:
                raise ValueError(raw["output_kind"])
            return cls(
                Preprocessing.of(**raw["preprocessing"]),
                tuple(printable(str(name)) for name in raw["classes"]),
                raw["output_kind"],
            )
        except RecursionError as error:
            raise ModelError("the model's embedded slimseg description is nested too deeply: write it again") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"the model's embedded slimseg description cannot be read ({one_line(error)})") from error
