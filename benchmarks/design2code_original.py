"""Runs Design2Code's own scorer, in a Python and folder of its own, for the benchmark beside it.

Its code (github.com/NoviScl/Design2Code, commit 7a575e4c, MIT) is copied to a temporary folder and mended there, no
more than it takes to run: one loop's indentation; the browser is the one that we use; torch, CLIP, matplotlib and
scikit-learn, which only CLIP and drawing need, are empty modules, and CLIP's term is 0. Nothing of it is copied into
this project.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.design2code_pairs import PagePair
from lensmith.render.browser import find_chromium

HOW_TO_GET_IT = (
    "git clone https://github.com/NoviScl/Design2Code DIR && git -C DIR checkout 7a575e4c; python3 -m venv VENV && "
    "VENV/bin/pip install numpy scipy pillow beautifulsoup4 opencv-python-headless colormath playwright; "
    "then --original DIR --original-python VENV/bin/python"
)

_REPAIRS = {
    "Design2Code/metrics/visual_score.py": (
        ("\n         if len(predict_blocks) == 0:", "\n        if len(predict_blocks) == 0:"),
        ("\n            elif len(original_blocks) == 0:", "\n        elif len(original_blocks) == 0:"),
    ),
    "Design2Code/metrics/screenshot_single.py": (
        ("p.chromium.launch()", "p.chromium.launch(executable_path=__import__('os').environ['DESIGN2CODE_BROWSER'])"),
    ),
}
_STUBS = {
    "torch.py": "class cuda:\n    is_available = staticmethod(lambda: False)\n",
    "clip.py": "def load(name, device):\n    return None, None\n",
    "matplotlib/__init__.py": "",
    "matplotlib/pyplot.py": "",
    "sklearn/__init__.py": "",
    "sklearn/metrics/__init__.py": "",
    "sklearn/metrics/pairwise.py": "cosine_similarity = None\n",
    "tqdm.py": "def tqdm(items, **_):\n    return items\n",
}
_RUNNER = """
import json, os, sys, time
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what it and its screenshots print is no answer
from Design2Code.metrics import visual_score
visual_score.calculate_clip_similarity_with_blocks = lambda *_: 0.0
for line in sys.stdin:
    target, prediction = json.loads(line)
    began, answer = time.perf_counter(), {}
    try:
        _, _, terms = visual_score.visual_eval_v3_multi([[prediction], target])[0]
        answer["terms"] = [float(term) for term in terms[:4]]
    except Exception as error:
        answer["error"] = f"{type(error).__name__}: {error}"
    answer["seconds"] = time.perf_counter() - began
    print(json.dumps(answer), file=answers, flush=True)
"""


@dataclass(frozen=True, kw_only=True)
class OriginalScore:
    """Block, text, position and colour by the original's code, or why it stopped; and the seconds that it took."""

    terms: tuple[float, ...] | None
    seconds: float
    error: str = ""


def original_scores(pairs: Sequence[PagePair], checkout: Path, python: Path) -> Iterator[OriginalScore]:
    """One for each pair, in order, as they come."""
    with tempfile.TemporaryDirectory(prefix="design2code-") as place:
        folder = Path(place)
        _prepare(checkout, folder)
        environment = {
            **os.environ,
            "PATH": f"{python.parent}:{os.environ['PATH']}",  # it starts `python3` for each screenshot
            "PYTHONPATH": f"{folder / 'stubs'}:{folder}",
            "DESIGN2CODE_BROWSER": str(find_chromium()),
        }
        command = [str(python), "-c", _RUNNER]
        # It looks for metrics/screenshot_single.py where it is started.
        with subprocess.Popen(
            command, cwd=folder / "Design2Code", env=environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=(folder / "log").open("w"),
        ) as process:  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            for index, pair in enumerate(pairs):
                process.stdin.write(json.dumps(_write_pair(folder / f"pair{index}", pair)) + "\n")
                process.stdin.flush()
                line = process.stdout.readline()
                if not line:
                    sys.exit(f"the original's code did not start:\n{(folder / 'log').read_text()[-3000:]}")
                answer = json.loads(line)
                terms = answer.get("terms")
                yield OriginalScore(
                    terms=None if terms is None else tuple(terms),
                    seconds=answer["seconds"],
                    error=answer.get("error", ""),
                )
            process.stdin.close()


def _prepare(checkout: Path, folder: Path) -> None:
    if not (checkout / "Design2Code/metrics/visual_score.py").exists():
        sys.exit(f"{checkout} is no checkout of Design2Code; {HOW_TO_GET_IT}")
    for name in ("metrics", "data_utils"):
        shutil.copytree(checkout / "Design2Code" / name, folder / "Design2Code" / name)
    shutil.copy(checkout / "Design2Code/__init__.py", folder / "Design2Code")
    for name, repairs in _REPAIRS.items():
        text = (folder / name).read_text(encoding="utf-8")
        for broken, mended in repairs:
            if text.count(broken) != 1:
                sys.exit(f"{name} is not as it was at 7a575e4c: {broken.strip()!r}")
            text = text.replace(broken, mended)
        (folder / name).write_text(text, encoding="utf-8")
    for name, text in _STUBS.items():
        stub = folder / "stubs" / name
        stub.parent.mkdir(parents=True, exist_ok=True)
        stub.write_text(text, encoding="utf-8")


def _write_pair(folder: Path, pair: PagePair) -> tuple[str, str]:
    folder.mkdir()
    paths = folder / "target.html", folder / "prediction.html"
    for path, html in zip(paths, (pair.target, pair.prediction), strict=True):
        path.write_text(html, encoding="utf-8")
    return str(paths[0]), str(paths[1])
