"""Commands whose dependencies are optional say which line installs them."""

import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from lensmith.core.errors import MissingExtraError

# Top-level modules that only extras bring. Any other missing module is a mistake in lensmith and stays a traceback.
OPTIONAL_MODULES = frozenset(
    {
        "cydifflib",
        "fastapi",
        "gguf",
        "html5lib",
        "huggingface_hub",
        "jinja2",
        "nicegui",
        "omegaconf",
        "onnxruntime",
        "playwright",
        "prometheus_client",
        "rapidocr",
        "ray",
        "scipy",
        "starlette",
        "tensorboard",
        "tokenizers",
        "torch",
        "transformers",
        "uvicorn",
    }
)

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def needs(*extras: str) -> Callable[[Callable[Parameters, Result]], Callable[Parameters, Result]]:
    """Marks a command that works with `pip install 'lensmith[EXTRA,...]'`.

    Where an optional module is missing, the command raises MissingExtraError with that line.
    """

    def decorate(command: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
        @functools.wraps(command)
        def checked(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
            try:
                return command(*args, **kwargs)
            except ModuleNotFoundError as error:
                module = (error.name or "").partition(".")[0]
                if module not in OPTIONAL_MODULES:
                    raise
                raise MissingExtraError(
                    f"this command needs {module}, which is not installed",
                    hint=f"pip install 'lensmith[{','.join(extras)}]'",
                ) from error

        return checked

    return decorate
