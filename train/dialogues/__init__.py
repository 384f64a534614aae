"""Written policy dialogues: business and conduct rules with replies that keep or break them."""

from csrm.train.dialogues.composer import FAMILY_NAMES, DialogueComposer
from csrm.train.dialogues.content import HELD_OUT_FILES, ContentError, load_content

__all__ = ["FAMILY_NAMES", "HELD_OUT_FILES", "ContentError", "DialogueComposer", "load_content"]
