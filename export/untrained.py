"""A decoder as it comes -> checkpoint, so that `csrm export` makes a zero-shot judge of it.

What it is: the weights of a Hugging Face folder or GGUF and their verbalizer rows, with no training
and a calibration that changes nothing (a = 1, b = 0). An encoder has no such use: its head is new.
`python -m csrm.export.untrained BACKBONE CHECKPOINT`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from csrm._core import ChatRenderer
from csrm.errors import BadArgument
from csrm.train.backbone import renderer_of, tokenizer_of
from csrm.train.calibration.platt import Calibration
from csrm.train.chat_template import verbalizers_of
from csrm.train.decoder import save_decoder
from csrm.train.decoder_files import load_decoder_backbone

UNCALIBRATED = Calibration(a=1.0, b=0.0, n=0, nll_before=0.0, nll_after=0.0)


def write_untrained(backbone: str | Path, checkpoint: str | Path) -> Path:
    """Writes the checkpoint of the decoder in the folder `backbone`; its path.

    Errors: BadArtifact and Unsupported (the backbone's files), BadArgument when it is no decoder or
    packages for GGUF are missing.
    """
    source, target = Path(backbone), Path(checkpoint)
    tokenizer = tokenizer_of(source)
    renderer = renderer_of(source, tokenizer)
    if not isinstance(renderer, ChatRenderer):
        raise BadArgument("the backbone is no decoder; an encoder must be trained first")
    verbalizers = verbalizers_of(lambda word: renderer.encode(word).tolist())
    save_decoder(load_decoder_backbone(source, verbalizers), target)
    (target / "tokenizer.json").write_bytes(tokenizer)
    (target / "calibration.json").write_text(json.dumps(asdict(UNCALIBRATED)) + "\n")
    provenance = {"sources": [], "steps": 0, "n_records": 0, "n_held_out": 0}
    (target / "provenance.json").write_text(json.dumps(provenance) + "\n")
    return target


if __name__ == "__main__":
    print(write_untrained(sys.argv[1], sys.argv[2]))
