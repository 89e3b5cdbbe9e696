"""The three agents and what they are asked: verifier, captioner, proposer.

Template -> backend -> validated record. A reply that does not hold up raises `BackendError`: it
never becomes a verdict, a caption or a candidate. How a backend reaches its model, and whether it
asks again after a failure, is the backend's matter.
"""

from npc_local.agents.captioner import describe
from npc_local.agents.proposer import propose
from npc_local.agents.rules import Rules, Strictness
from npc_local.agents.verifier import checklist, verify

__all__ = ["Rules", "Strictness", "checklist", "describe", "propose", "verify"]
