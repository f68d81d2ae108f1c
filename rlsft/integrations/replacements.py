"""Replace functions of another library and put them back, after a look at its version and their arguments."""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import inspect
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlsft.errors import RunError


@dataclass(frozen=True)
class Hook:
    """One function of another library that gets replaced."""

    module: str  # "verl.trainer.ppo.core_algos"
    name: str  # "compute_gae_advantage_return", or "Class.method"
    parameters: tuple[str, ...]  # what it must take today; ("args", "kwargs") for an autograd function's apply
    make: Callable[[Any], Any]  # the function that stands there now -> ours

    def owner(self) -> Any:
        """The module, or the class inside it, whose attribute is replaced."""
        *path, _ = self.name.split(".")
        owner = importlib.import_module(self.module)
        for part in path:
            owner = getattr(owner, part)
        return owner

    @property
    def attribute(self) -> str:
        """The last part of the name."""
        return self.name.split(".")[-1]


@dataclass
class Replacements:
    """The hooks of one library, applied together or not at all."""

    library: str  # distribution and import name
    versions: tuple[tuple[int, ...], tuple[int, ...]]  # oldest that was read, first that was not
    undo_steps: list[Callable[[], None]] = field(default_factory=list)

    @property
    def applied(self) -> bool:
        """Whether the library runs on our functions now."""
        return bool(self.undo_steps)

    def apply(self, hooks: Sequence[Hook]) -> None:
        """Replace all hooks; one line to stderr names them.

        Raises:
            RunError: the library is missing, of a version that was not read, or a function takes other arguments.
        """
        if self.applied:
            return
        version = self._checked_version()
        found = [(hook, hook.owner(), self._checked(hook)) for hook in hooks]
        for hook, owner, original in found:
            self.replace(owner, hook.attribute, hook.make(original))
        names = ", ".join(hook.name for hook in hooks)
        print(f"[rlsft] {self.library} {version} (experimental) runs on rlsft's {names}", file=sys.stderr)

    def replace(self, owner: Any, attribute: str, ours: Any) -> None:
        """Put `ours` there, and wherever a loaded module of the library holds the same object by import."""
        original = vars(owner)[attribute]
        places = [(owner, attribute)]
        if inspect.ismodule(owner):
            places += self._by_name_imports(attribute, original, owner)
        for place, name in places:
            setattr(place, name, ours)
            self.undo_steps.append(functools.partial(setattr, place, name, original))

    def undo(self) -> None:
        """Everything as it was."""
        while self.undo_steps:
            self.undo_steps.pop()()

    def _by_name_imports(self, name: str, original: Any, owner: Any) -> list[tuple[Any, str]]:
        modules = [m for key, m in sys.modules.items() if key.split(".")[0] == self.library and m is not owner]
        return [(m, name) for m in modules if getattr(m, "__dict__", {}).get(name) is original]

    def _checked_version(self) -> str:
        oldest, beyond = self.versions
        wanted = f"{self.library}>={_dotted(oldest)},<{_dotted(beyond)}"
        try:
            version = importlib.metadata.version(self.library)
        except importlib.metadata.PackageNotFoundError:
            raise RunError(f"{self.library} is not installed here; its adapter is for {wanted}") from None
        numbers = tuple(int(part) for part in version.split("+")[0].split(".")[:3] if part.isdigit())
        if not oldest <= numbers < beyond:
            raise RunError(
                f"the adapter of {self.library} was written for {wanted}, got {version}: nothing is replaced"
            )
        return version

    def _checked(self, hook: Hook) -> Any:
        original = getattr(hook.owner(), hook.attribute, None)
        came = () if original is None else tuple(inspect.signature(original).parameters)
        if came != hook.parameters:
            raise RunError(
                f"{hook.module}.{hook.name} must take ({', '.join(hook.parameters)}), got "
                f"{'no such function' if original is None else f'({chr(44).join(came)})'}: this build of "
                f"{self.library} is another one than its version says, and nothing is replaced"
            )
        return original


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(str(part) for part in version)
