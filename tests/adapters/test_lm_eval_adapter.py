"""lm-evaluation-harness itself runs local tasks through the adapter, and gets what its own backend gets."""

import json

import pytest

from tests.support.harness import LM_EVAL, environment, run_python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CHOICE = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/questions.jsonl}}}}
output_type: {output_type}
test_split: test
doc_to_text: "{text}"
{rest}
"""
OF_CHOICE = """
doc_to_choice: "{{options}}"
doc_to_target: answer
metric_list: [{metric: acc}, {metric: acc_norm}]
"""
OF_WRITING = """
doc_to_target: "{{options[answer]}}"
generation_kwargs: {until: ["e"], max_gen_toks: 12, do_sample: false}
metric_list: [{metric: exact_match}]
"""
OF_ROLLING = """
doc_to_target: "{{question}} {{options}}"
metric_list: [{metric: word_perplexity}, {metric: bits_per_byte}]
"""
PICTURES = "doc_to_image: !function pictures.of_document\n"
PICTURES_CODE = """
from PIL import Image
def of_document(doc):
    return [Image.open(doc["picture"])]
"""
RUN = """
import json, sys
import lm_eval.models, lensmith.adapters.lm_eval
from lm_eval import simple_evaluate
from lm_eval.tasks import TaskManager
folder, model, arguments, tasks = sys.argv[1:]
found = simple_evaluate(
    model=model, model_args=arguments, tasks=tasks.split(","), task_manager=TaskManager(include_path=folder),
    log_samples=True, bootstrap_iters=0, device="cpu",
)
samples = {
    task: [[each["doc_id"], each["resps"]] for each in sorted(rows, key=lambda row: row["doc_id"])]
    for task, rows in found["samples"].items()
}
print("RESULT" + json.dumps({"results": found["results"], "samples": samples}, default=str))
"""


@pytest.fixture
def lm_eval(questions_folder):
    """Runs tasks with a model; gives results and each sample's responses."""
    python = environment("lm-eval", with_needs=LM_EVAL)
    tasks = {
        "tiny_choice": ("multiple_choice", "{{question}}", OF_CHOICE),
        "tiny_writing": ("generate_until", "{{question}} ", OF_WRITING),
        "tiny_rolling": ("loglikelihood_rolling", "", OF_ROLLING),
        "tiny_pictures": ("multiple_choice", "<image>{{question}}", OF_CHOICE + PICTURES),
        "tiny_pictures_writing": ("generate_until", "<image>{{question}}", OF_WRITING + PICTURES),
    }
    for name, (kind, text, rest) in tasks.items():
        content = CHOICE.format(name=name, folder=questions_folder, output_type=kind, text=text, rest=rest)
        (questions_folder / f"{name}.yaml").write_text(content)
    (questions_folder / "pictures.py").write_text(PICTURES_CODE)

    def run(model, arguments, tasks):
        out = run_python(python, "-c", RUN, str(questions_folder), model, arguments, tasks, cwd=questions_folder)
        return json.loads(out.rpartition("RESULT")[2])

    return run


def assert_alike(ours, theirs):
    """Logprobs within 1e-4 (two implementations, float32, sums of tens of tokens); everything else equal."""
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        if isinstance(mine, list):
            assert_alike(mine, other)
        elif mine not in ("True", "False") and other not in ("True", "False") and is_number(mine):
            assert float(mine) == pytest.approx(float(other), abs=1e-4)
        else:
            assert mine == other


def is_number(value):
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def test_a_text_model_has_the_numbers_of_the_harness_own_backend(lm_eval, text_folder):
    tasks = "tiny_choice,tiny_writing,tiny_rolling"
    ours = lm_eval("lensmith", f"pretrained={text_folder}", tasks)
    theirs = lm_eval("hf", f"pretrained={text_folder},dtype=float32", tasks)
    for task in tasks.split(","):
        assert len(ours["samples"][task]) == 12
        assert_alike(ours["samples"][task], theirs["samples"][task])
    assert ours["results"]["tiny_choice"]["acc,none"] == theirs["results"]["tiny_choice"]["acc,none"]
    assert ours["results"]["tiny_choice"]["acc_norm,none"] == theirs["results"]["tiny_choice"]["acc_norm,none"]


def test_pictures_are_seen_in_likelihoods_and_in_writing(lm_eval, picture_folder):
    found = lm_eval("lensmith", f"pretrained={picture_folder}", "tiny_pictures,tiny_pictures_writing")
    samples = found["samples"]["tiny_pictures"]
    assert [len(responses) for _, responses in samples] == [2 + number % 3 for number in range(12)]
    assert 0 <= found["results"]["tiny_pictures"]["acc,none"] <= 1
    written = [responses for _, responses in found["samples"]["tiny_pictures_writing"]]
    assert len(written) == 12
    assert all("e" not in text for row in written for texts in row for text in texts)


def test_the_harness_own_command_line_knows_the_model(questions_folder, lm_eval, text_folder):
    python = environment("lm-eval", with_needs=LM_EVAL)
    out = run_python(
        python,
        *("-m", "lensmith.adapters.lm_eval", "run", "--model", "lensmith"),
        *("--model_args", f"pretrained={text_folder}", "--tasks", "tiny_choice"),
        *("--include_path", str(questions_folder), "--limit", "4"),
        cwd=questions_folder,
    )
    assert "tiny_choice" in out
    assert "acc_norm" in out
