"""Written dialogues of agents with tools that must follow a procedure; labels are computed."""

from csrm.train.procedures.composer import ProcedureComposer
from csrm.train.procedures.content import DOMAIN_NAMES, load_domains

__all__ = ["DOMAIN_NAMES", "ProcedureComposer", "load_domains"]
