"""Our ops and learned rewards inside other people's trainers; nothing in rlsft imports this room.

Each module imports its library only when it is used: `rlsft.integrations.trl` puts the fused head under TRL's
trainers, `rlsft.integrations.rewards` hands learned rewards to TRL, verl and OpenRLHF.
"""

from __future__ import annotations
