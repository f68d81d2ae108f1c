"""A method as a chain of stages in one run directory: what is finished is reused, what contradicts it is refused."""

from __future__ import annotations

import gc
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from numpy.typing import NDArray
from rich.console import Console

from rlsft.artifacts import jsonable, write_text
from rlsft.errors import ConfigError
from rlsft.models import freed_memory_kept, release_freed_memory
from rlsft.rollouts import SamplingParams, TransformersEngine
from rlsft.trainers.chain.config import ChainConfig
from rlsft.trainers.chain.fine_tuning import fine_tune
from rlsft.trainers.chain.rows import demonstrations, hold_out, refuse_shared_prompts, rows_hash
from rlsft.trainers.chain.sampling import sample_responses
from rlsft.trainers.chain.stages import EVALUATION_FIELDS, SFT_FIELDS, Stage, settings_of
from rlsft.trainers.run_dir import RunDirectory

if TYPE_CHECKING:
    from rlsft.evaluation import SampledAnswers

Config = TypeVar("Config", bound=ChainConfig)
Result = TypeVar("Result")
Scorer = Callable[[Sequence[Any], Sequence[str]], NDArray[Any]]  # (prompts, completions) -> rewards [answers]


class ChainTrainer(ABC, Generic[Config, Result]):
    """Walks the stages of a method; a subclass says which they are and what the finished run gives back.

    Args:
        model: folder of a causal LM.
        args: settings of the method.
        train_dataset: demonstrations, `prompt` + `completion` (a `datasets.Dataset` or a list of dicts).
        eval_dataset: held-out demonstrations; None = a tenth of the training prompts is held out.
        processing_class: tokenizer; None = that of the model's folder.
        callbacks: further `transformers.TrainerCallback`s for every training stage.

    Raises:
        ConfigError, DataError, ModelError: see the message; nothing has been written then.
    """

    method: ClassVar[str]  # its name in run.json and in the tables

    def __init__(
        self,
        model: str | Path,
        args: Config,
        train_dataset: Any,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        callbacks: Sequence[Any] | None = None,
    ) -> None:
        from rlsft.models import load_tokenizer

        if not isinstance(model, (str, Path)):
            raise ConfigError(
                f"model must be a folder, because each stage loads it afresh, got {type(model).__name__}; "
                "save it with save_pretrained first"
            )
        self.model = str(model)
        self.args = args
        self.train_rows = demonstrations(train_dataset, "train_dataset")
        if eval_dataset is not None:
            self.eval_rows = demonstrations(eval_dataset, "eval_dataset")
        else:
            self.train_rows, self.eval_rows = hold_out(self.train_rows)
        refuse_shared_prompts(self.train_rows, self.eval_rows)
        self.tokenizer = processing_class if processing_class is not None else load_tokenizer(self.model)
        self.callbacks = list(callbacks or [])
        if args.kpi:
            from rlsft.evaluation import load_kpi

            load_kpi(args.kpi)  # a typo in it should cost a second now, not the whole run
        self.max_prompt_length()
        self.run = RunDirectory(args.output_dir)

    # ---- what a method says of itself ------------------------------------------------------------------------------
    @abstractmethod
    def stages(self) -> list[Stage]:
        """Every stage of the run in its order, from `sft_stage` to `evaluation_stage`."""

    @abstractmethod
    def result(self) -> Result:
        """What the finished run gives back."""

    @abstractmethod
    def compared_policies(self) -> tuple[Any, Any]:
        """The SFT policy and the method's, as models, for the final table."""

    @abstractmethod
    def scorer(self) -> Scorer:
        """The learned reward, for the final table."""

    @abstractmethod
    def publish(self, folder: Path) -> Path:
        """Write what else belongs to the evaluation; returns the folder of the final model, which is plain."""

    def after(self, stage: Stage) -> None:
        """Called when a stage has been made or found finished; does nothing here."""

    # ---- the chain -------------------------------------------------------------------------------------------------
    def train(self) -> Result | None:
        """Run every stage that is not finished yet; None when `stop_after` ended the chain early.

        Raises:
            RunError: the output directory is in use, holds something else, or was made with other settings.
        """
        stages, args = self.stages(), self.args
        settings = settings_of(stages, args)
        names = [stage.name for stage in stages]
        redone = names[names.index(args.redo) :] if args.redo is not None else []
        with self.run, freed_memory_kept(args.keep_freed_memory and args.device.type == "cpu"):
            self._write_config()
            for place, stage in enumerate(stages, start=1):
                where = f"[{place}/{len(stages)}] {stage.name}"
                self._pass(stage, settings[stage.name], where, redo=stage.name in redone)
                self.after(stage)
                if stage.name == args.stop_after:
                    return None
            return self.result()

    def _pass(self, stage: Stage, settings: dict[str, Any], where: str, *, redo: bool) -> None:
        """Make one stage, or see that it is finished."""
        run = self.run
        if not run.begin(stage.name, settings, redo=redo):
            self._announce(f"{where}: finished earlier, reused")
            return
        self._announce(f"{where}: {stage.title}")
        with run.timed(stage.name):
            facts = stage.make(run.stage_dir(stage.name))
        run.finish(stage.name, settings, **facts)
        gc.collect()
        release_freed_memory()  # models of different stages leave a heap in pieces

    def _announce(self, text: str) -> None:
        """One line a stage, on standard error like all progress."""
        if self.args.show_progress is not False:
            Console(stderr=True).print(text, markup=False)

    def _write_config(self) -> None:
        import yaml
        from transformers import TrainingArguments

        args, inherited = self.args, TrainingArguments.__dataclass_fields__
        names = [name for name in type(args).__dataclass_fields__ if name not in inherited]
        values = {name: getattr(args, name) for name in [*names, "output_dir", "seed"]}
        text = yaml.safe_dump(jsonable(values), sort_keys=False, allow_unicode=True)
        write_text(self.run.path / "rlsft_config.yaml", text)
        self.run.record(model=self.model, seed=args.seed, method=self.method, num_train_examples=len(self.train_rows))

    # ---- stages of every method ------------------------------------------------------------------------------------
    def sft_stage(self) -> Stage:
        """The first one: fine-tuning on the demonstrations."""
        data = {"model": self.model, "train_data": rows_hash(self.train_rows)}
        return Stage("sft", "fine-tuning on the demonstrations", SFT_FIELDS, self._sft, data)

    def evaluation_stage(self, *fields: str) -> Stage:
        """The last one, which depends on `fields` too: the method against SFT on held-out prompts."""
        title = f"comparing SFT and {self.method} on held-out prompts"
        data = {"eval_data": rows_hash(self.eval_rows)}
        return Stage("evaluation", title, (*EVALUATION_FIELDS, *fields), self._evaluation, data)

    def _sft(self, folder: Path) -> dict[str, Any]:
        args = self.args
        if args.skip_sft:
            return {"num_examples": 0}
        # a quarter as many held-out rows as the final table has prompts, from the other end of the set
        held_out = self.eval_rows[-max(1, args.eval_prompts // 4) :] if self.eval_rows else []
        return fine_tune(
            self.model, args.sft_config(str(folder)), self.train_rows[: args.sft_max_examples or None], held_out,
            tokenizer=self.tokenizer, callbacks=self.callbacks, target=folder / "model",
        )  # fmt: skip

    def _evaluation(self, folder: Path) -> dict[str, Any]:
        from rlsft.trainers.chain.evaluation import evaluate_run

        return evaluate_run(self, folder)

    # ---- what stages share -----------------------------------------------------------------------------------------
    def sft_model(self) -> str:
        """Folder of the SFT policy, from which policy and reward start."""
        # not the path in done.json: a run directory may be moved or copied
        return self.model if self.args.skip_sft else str(self.run.stage_dir("sft") / "model")

    def max_prompt_length(self) -> int:
        """Tokens a prompt may have so that its answer still fits."""
        room = (self.args.max_length or 1024) - self.args.max_completion_length
        if room < 1:
            raise ConfigError(
                f"max_length ({self.args.max_length}) leaves no room for a prompt beside max_completion_length "
                f"({self.args.max_completion_length})"
            )
        return room

    def sampling_for_reward(self, seed: int) -> SamplingParams:
        """How the answers are drawn that a reward is learned from; the record of it travels with them."""
        args = self.args
        return SamplingParams(
            temperature=args.sample_temperature,
            top_p=args.sample_top_p,
            max_new_tokens=args.max_completion_length,
            seed=seed,
        )

    def draw_samples(
        self,
        policy: Any,
        rows: Sequence[dict[str, Any]],
        path: Path,
        sampling: SamplingParams,
        *,
        keep_token_ids: bool = False,
    ) -> list[dict[str, Any]]:
        """Rows of `sample_responses`, also written to `path`: `samples_per_prompt` answers of `policy` to a prompt."""
        args = self.args
        return sample_responses(
            TransformersEngine(policy, self.tokenizer, batch_size=args.sample_batch_size),
            self.tokenizer,
            rows,
            sampling=sampling,
            num_samples=args.samples_per_prompt,
            path=path,
            prompts_per_call=max(1, 4 * args.sample_batch_size // args.samples_per_prompt),
            max_prompt_length=self.max_prompt_length(),
            system_prompt=args.system_prompt,
            truncate_prompt=args.truncate_prompt,
            language=args.language,
            keep_token_ids=keep_token_ids,
            show_progress=args.show_progress,
        )

    def answers(
        self, policy: Any, prompts: Sequence[Any], *, label: str, sampling: SamplingParams, **options: Any
    ) -> SampledAnswers:
        """Answers of `policy` as `rlsft.evaluation.sample_answers` gives them, with further `options` of it."""
        from rlsft.evaluation import sample_answers

        return sample_answers(
            TransformersEngine(policy, self.tokenizer, batch_size=self.args.sample_batch_size),
            self.tokenizer,
            prompts,
            model=label,
            sampling=sampling,
            max_prompt_length=self.max_prompt_length(),
            system_prompt=self.args.system_prompt,
            truncate_prompt=self.args.truncate_prompt,
            **options,
        )
