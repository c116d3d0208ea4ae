"""Generated CarFusion: pictures of streets with cars, in the raw layout, with all 14 points of every car.

`generate` writes a data set; `SynthSpec` says which; `DIFFICULTIES` names how hard.
"""

from __future__ import annotations

from carkp_carfusion.data.synth.difficulty import DIFFICULTIES, Difficulty
from carkp_carfusion.data.synth.generate import SEQUENCES, SynthReport, SynthSpec, generate, render_frame

__all__ = ["DIFFICULTIES", "SEQUENCES", "Difficulty", "SynthReport", "SynthSpec", "generate", "render_frame"]
