"""Written policy dialogues: business and conduct rules with replies that keep or break them."""

from csrm.train.dialogues.composer import FAMILY_NAMES, DialogueComposer
from csrm.train.dialogues.content import ContentError, load_content

__all__ = ["FAMILY_NAMES", "ContentError", "DialogueComposer", "load_content"]
