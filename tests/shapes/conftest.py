"""No network for diffusers and transformers, said before any test module imports them."""

from __future__ import annotations

from npc_local.core.offline.switches import go_offline

go_offline()
