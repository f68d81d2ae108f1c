"""What scikit-learn asks of a clusterer that is also a transformer, without inheriting from its classes."""

from __future__ import annotations

import inspect
import sys
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from rlsft.ranking.estimator_inputs import Floats, not_fitted_error

if TYPE_CHECKING:
    from typing import Self

_OUTPUTS = ("default", "pandas", "polars")


class ClusterTransformer:
    """Parameters by the constructor's names, tags, data frames out; scikit-learn is loaded by its own calls only."""

    n_clusters_: int
    _sklearn_output_config: dict[str, str]  # scikit-learn's name: its clone copies the choice

    @classmethod
    def _parameters(cls) -> list[str]:
        return sorted(name for name in inspect.signature(cls.__init__).parameters if name != "self")

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters of the constructor and their values; `deep` has nothing to add here."""
        return {name: getattr(self, name) for name in self._parameters()}

    def set_params(self, **params: Any) -> Self:
        """Change parameters by name; `fit` checks the values.

        Raises:
            ValueError: no parameter has this name.
        """
        valid = self._parameters()
        for name, value in params.items():
            if name not in valid:
                raise ValueError(f"Invalid parameter {name!r} for estimator {self!r}. Valid parameters are: {valid}.")
            setattr(self, name, value)
        return self

    def __repr__(self) -> str:
        defaults = inspect.signature(type(self).__init__).parameters
        changed = [
            f"{name}={value!r}"
            for name, value in self.get_params().items()
            if not (value is defaults[name].default or repr(value) == repr(defaults[name].default))
        ]
        return f"{type(self).__name__}({', '.join(changed)})"

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "n_clusters_")

    def _require_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise not_fitted_error(
                f"This {type(self).__name__} instance is not fitted yet. Call 'fit' with appropriate arguments before "
                "using this estimator."
            )

    def __sklearn_tags__(self) -> Any:
        from sklearn.utils import InputTags, Tags, TargetTags, TransformerTags

        return Tags(
            estimator_type="clusterer",
            target_tags=TargetTags(required=False),
            transformer_tags=TransformerTags(preserves_dtype=["float64", "float32"]),
            input_tags=InputTags(sparse=False, allow_nan=False),
        )

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[np.object_]:
        """Names of the columns of `transform`: the class in lower case and the number of the cluster."""
        self._require_fitted()
        name = type(self).__name__.lower()
        return np.asarray([f"{name}{c}" for c in range(self.n_clusters_)], dtype=object)

    def set_output(self, *, transform: Literal["default", "pandas", "polars"] | None = None) -> Self:
        """What `transform` returns: "default" (NumPy), "pandas" or "polars"; None leaves it as it is."""
        if transform is not None and transform not in _OUTPUTS:
            raise ValueError(f"transform must be one of {', '.join(map(repr, _OUTPUTS))} or None, got {transform!r}")
        if transform is not None:
            self._sklearn_output_config = {"transform": transform}
        return self

    def _in_container(self, data: Floats, X: Any) -> Any:
        chosen = getattr(self, "_sklearn_output_config", {}).get("transform")
        if chosen is None and "sklearn" in sys.modules:
            import sklearn

            chosen = sklearn.get_config()["transform_output"]
        if chosen in (None, "default"):
            return data
        names = list(self.get_feature_names_out())
        if chosen == "pandas":
            import pandas

            return pandas.DataFrame(data, index=X.index if hasattr(X, "iloc") else None, columns=names)
        import polars

        return polars.DataFrame(data, schema=names, orient="row")
