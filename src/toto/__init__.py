"""Toto: video to tokens once; many models trained and evaluated on them."""

__version__ = "0.1.0"
__all__ = ["Dataset", "__version__"]

TYPE_CHECKING = False  # type checkers take this name as true; `typing` would be most of this import's time
if TYPE_CHECKING:
    from toto.shards.dataset import Dataset


def __getattr__(name: str) -> type:
    """`toto.Dataset` without importing pyarrow for those who only want the version."""
    if name == "Dataset":
        from toto.shards.dataset import Dataset

        return Dataset
    raise AttributeError(f"module 'toto' has no attribute {name!r}")
