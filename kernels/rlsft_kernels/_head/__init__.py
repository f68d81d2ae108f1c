"""The language-model head of `linear_logprob`, `linear_cross_entropy` and `linear_policy_loss`.

`head.py` says what the logits are, `rows.py` what is done with a tile of them (`torch_rows.py`, `native_rows.py` and
`triton_rows.py` do it), `tiling.py` how large tiles are, and `passes.py` goes over them: statistics, gradients, or both
in one pass. Matrix products are always torch's.
"""
