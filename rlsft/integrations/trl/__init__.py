"""TRL's SFT, DPO, KTO, GRPO and RLOO trainers on our fused head: `patch()`, `unpatch()`, `with patched(): …`.

TRL is imported by the first call, not by the import of this module.
"""

from __future__ import annotations

from rlsft.integrations.trl.patching import TRAINERS, is_patched, patch, patched, unpatch

__all__ = ["TRAINERS", "is_patched", "patch", "patched", "unpatch"]
