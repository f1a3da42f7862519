"""lmms-eval itself runs local tasks with pictures through the adapter, found by its entry point, right side up."""

import json
from pathlib import Path

import pytest

from lensmith.adapters.common import chat_request
from lensmith.models.scoring.model import Asked, ScoredModel
from tests.support.harness import LMMS_EVAL, LMMS_EVAL_ALONE, environment, run_python

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {folder}/questions.jsonl}}}}
output_type: {kind}
test_split: test
doc_to_visual: !function pictures.of_document
doc_to_text: "{{{{question}}}}"
doc_to_choice: !function pictures.options
doc_to_target: {target}
{rest}
metadata: [{{version: 0.0}}]
"""
OF_CHOICE = """
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: acc_norm, aggregation: mean, higher_is_better: true}
"""
OF_WRITING = """
generation_kwargs: {max_new_tokens: 6, do_sample: false}
metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]
"""
PICTURES_CODE = """
from PIL import Image
def of_document(doc):
    return [Image.open(doc["picture"]).convert("RGB")]
def options(doc):
    return doc["options"]
"""


@pytest.fixture
def lmms_eval(questions_folder):
    """Runs its command line; gives the results and each sample as they were logged."""
    python = environment("lmms-eval", with_needs=LMMS_EVAL, alone=LMMS_EVAL_ALONE)
    for name, kind, target, rest in (
        ("tiny_choice", "multiple_choice", "answer", OF_CHOICE),
        ("tiny_writing", "generate_until", "answer", OF_WRITING),
    ):
        content = TASK.format(name=name, folder=questions_folder, kind=kind, target=target, rest=rest)
        (questions_folder / f"{name}.yaml").write_text(content)
    (questions_folder / "pictures.py").write_text(PICTURES_CODE)

    def run(arguments, task):
        out = questions_folder / f"out-{task}"
        run_python(
            python,
            *("-m", "lmms_eval", "--model", "lensmith", "--model_args", arguments, "--tasks", task),
            *("--include_path", str(questions_folder), "--output_path", str(out), "--log_samples", "--batch_size", "1"),
            cwd=questions_folder,
        )
        [results] = out.rglob("*_results.json")
        [samples] = out.rglob("*_samples_*.jsonl")
        found = json.loads(results.read_text())["results"][task]
        return found, sorted(map(json.loads, samples.read_text().splitlines()), key=lambda sample: sample["doc_id"])

    return run


def expected_scores(folder: Path, question: dict[str, object]):
    model = ScoredModel.load(folder)
    options = tuple(f" {option}" for option in question["options"])
    asked = Asked(request=chat_request(question["question"], [question["picture"]]), options=options, spaced=False)
    [scores] = model.score([model.prepare(asked)])
    return scores


def rewrite(folder: Path, change) -> list[dict[str, object]]:
    path = folder / "questions.jsonl"
    questions = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(question) + "\n" for question in questions))
    return questions


@pytest.mark.parametrize("likeliest_is_right", [True, False], ids=["likeliest", "least likely"])
@pytest.mark.parametrize("normalise", ["option", "sum"])
def test_likelihoods_are_right_side_up(lmms_eval, questions_folder, picture_folder, likeliest_is_right, normalise):
    """Where the likeliest option is right, all is right; where the least likely one is, nothing."""

    def value(score):
        return score.mean if normalise == "option" else score.total

    def answered(question):
        values = [value(score) for score in expected_scores(picture_folder, question)]
        return question | {"answer": values.index((max if likeliest_is_right else min)(values))}

    questions = rewrite(questions_folder, answered)
    results, samples = lmms_eval(f"pretrained={picture_folder},normalise={normalise}", "tiny_choice")
    assert results["acc,none"] == float(likeliest_is_right)
    for sample, question in zip(samples, questions, strict=True):
        losses = [float(response[0]) for response in sample["filtered_resps"]]
        expected = [-value(score) for score in expected_scores(picture_folder, question)]
        assert losses == pytest.approx(expected, abs=1e-4)


def test_answers_are_written(lmms_eval, picture_folder):
    _, samples = lmms_eval(f"pretrained={picture_folder}", "tiny_writing")
    texts = [sample["filtered_resps"][0] for sample in samples]
    assert len(texts) == 12
    assert any(texts)
    assert len(set(texts)) > 1  # the model sees what it is asked
