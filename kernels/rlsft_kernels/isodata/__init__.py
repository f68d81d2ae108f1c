"""ISODATA: clustering whose number of clusters adapts by splitting and merging, for one set or a batch of groups."""

from __future__ import annotations

from rlsft_kernels.isodata.op import isodata
from rlsft_kernels.isodata.result import IsodataHistory, IsodataResult

__all__ = ["IsodataHistory", "IsodataResult", "isodata"]
