"""Answers to numbers to pages: generations, comparisons with intervals, KPIs, plots, the report, the model card."""

from rlsft.evaluation.comparison import Comparison, MetricRow
from rlsft.evaluation.generate import SampledAnswers, sample_answers, sequence_kl
from rlsft.evaluation.kpi import Kpi, load_kpi, score_kpi
from rlsft.evaluation.logprob_gap import LogprobGap, logprob_gap
from rlsft.evaluation.model_card import write_model_card
from rlsft.evaluation.plots import plot_comparison, plot_ranking, plot_run
from rlsft.evaluation.records import Generation, read_generations, write_generations
from rlsft.evaluation.report import build_report
from rlsft.evaluation.suite_tasks import LocalTask, read_local_task
from rlsft.evaluation.suites import SuiteResult, run_suite
from rlsft.evaluation.table import compare

__all__ = [
    "Comparison",
    "Generation",
    "Kpi",
    "LocalTask",
    "LogprobGap",
    "MetricRow",
    "SampledAnswers",
    "SuiteResult",
    "build_report",
    "compare",
    "load_kpi",
    "logprob_gap",
    "plot_comparison",
    "plot_ranking",
    "plot_run",
    "read_generations",
    "read_local_task",
    "run_suite",
    "sample_answers",
    "score_kpi",
    "sequence_kl",
    "write_generations",
    "write_model_card",
]
