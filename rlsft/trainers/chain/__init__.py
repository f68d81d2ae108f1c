"""What STR and RFT share: a chain of stages in one run directory, each of which is finished, resumable or refused.

`trainer.py` walks the stages that a method lists, `config.py` has the settings of both, `rows.py` the demonstrations,
`sampling.py` the answers that are drawn, `evaluation.py` the comparison at the end.
"""
