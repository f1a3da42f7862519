"""Files of questions: both kinds are read alike, and a bad line is told by its number and costs itself only."""

import base64
import csv
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lensmith.core.errors import ImageError, InputError
from lensmith.evaluate.choice.file import read_questions


def png(seed=0, size=(12, 9)):
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, format="PNG")
    return buffer.getvalue()


def base64_of(data):
    return base64.b64encode(data).decode()


GOOD = {"question": "What is it?", "options": ["a dog", "a cat"], "answer": "B"}


@pytest.fixture
def read(tmp_path):
    """Reads lines (texts, or values as JSON) as a file of JSON lines."""
    (tmp_path / "p.png").write_bytes(png())

    def make(*lines, encoding="utf-8"):
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        (tmp_path / "q.jsonl").write_text("\n".join(texts) + "\n", encoding=encoding)
        return read_questions(tmp_path / "q.jsonl")

    return make


@pytest.fixture
def read_table(tmp_path):
    """Reads rows (dictionaries) as a table, written as pandas writes one."""
    (tmp_path / "p.png").write_bytes(png())

    def make(*rows, columns=None):
        columns = columns or list(dict.fromkeys(key for row in rows for key in row))
        with (tmp_path / "q.tsv").open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, dialect="excel-tab", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return read_questions(tmp_path / "q.tsv")

    return make


def row(**changes):
    values = {"index": 1, "question": "What is it?", "A": "a dog", "B": "a cat", "C": "", "answer": "B"}
    return values | {"image": base64_of(png())} | changes


# --- JSON lines -------------------------------------------------------------------------------------------------------


def test_a_question_has_all_its_parts(read):
    file = read(
        {**GOOD, "id": "x7", "category": "animals", "hint": "It barks not.", "picture": "p.png"},
        {**GOOD, "answer": 0, "options": {"A": "1", "B": "2", "C": "3"}},
    )
    first, second = file.questions
    assert (first.id, first.line, first.answer, first.category, first.hint) == ("x7", 1, 1, "animals", "It barks not.")
    assert first.options == ("a dog", "a cat")
    assert file.picture(first.pictures[0]) == png()
    assert (second.id, second.line, second.answer, second.options) == ("line 2", 2, 0, ("1", "2", "3"))
    assert second.pictures == ()
    assert file.bad_lines == []


@pytest.mark.parametrize(("answer", "index"), [("A", 0), ("b", 1), (" B ", 1), (0, 0), (1, 1), ("1", 1)])
def test_answers_are_letters_or_indices(read, answer, index):
    assert read({**GOOD, "answer": answer}).questions[0].answer == index


@pytest.mark.parametrize(
    ("answer", "options", "index"),
    [
        ("a cat", ["a dog", "a cat"], 1),
        (" A CAT ", ["a dog", "a cat"], 1),
        ("Cat", ["cat", "Cat"], 1),
        ("b", ["b", "a", "c"], None),  # the letter of "a", the text of "b"
        ("B", ["a dog", "B"], 1),
        ("1", ["1", "2", "3"], None),  # the index of "2", the text of "1"
        ("0", ["0", "1"], 0),
        (1, ["1", "2", "3"], 1),  # a number beside texts is an index
        (7, ["5", "6", "7"], 2),
        (1, [1, 2, 3], None),
        (3, [1, 2, 3], 2),
        ("2.5", ["1.5", "2.5"], 1),
        ("a cat", ["a cat", "a dog", "a cat"], None),
        ("A Cat", ["a cat", "a CAT"], None),
        ("B", ["a cat", "a cat"], 1),
    ],
)
def test_an_answer_may_be_an_options_text_where_nothing_else_is_meant(read, answer, options, index):
    file = read({**GOOD, "options": options, "answer": answer})
    if index is None:
        assert "its 'answer' is the " in str(file.bad_lines[0])
        assert file.questions == []
    else:
        assert file.questions[0].answer == index


# Rows as these files have them, with the names of their authors and values of ours.
PUBLISHED = {
    "AI2-ARC": {
        "id": "Mercury_1",
        "question": "Which is it?",
        "choices": {"text": ["a dog", "a cat", "a bird", "a fish"], "label": ["A", "B", "C", "D"]},
        "answerKey": "B",
    },
    "AI2-ARC with numbers": {
        "id": "NYSEDREGENTS_1",
        "question": "Which is it?",
        "choices": {"text": ["a dog", "a cat", "a bird", "a fish"], "label": ["1", "2", "3", "4"]},
        "answerKey": "2",
    },
    "AI2-ARC, the authors' own": {
        "id": "Mercury_1",
        "question": {
            "stem": "Which is it?",
            "choices": [
                {"text": "a dog", "label": "A"},
                {"text": "a cat", "label": "B"},
                {"text": "a bird", "label": "C"},
            ],
        },
        "answerKey": "B",
    },
    "OpenBookQA": {
        "id": "7-980",
        "question_stem": "Which is it?",
        "choices": {"text": ["a dog", "a cat"], "label": ["A", "B"]},
        "answerKey": "B",
    },
    "ScienceQA": {
        "image": None,
        "question": "Which is it?",
        "choices": ["a dog", "a cat"],
        "answer": 1,
        "hint": "",
        "task": "closed choice",
        "grade": "grade2",
        "subject": "natural science",
        "category": "Animals",
        "lecture": "",
        "solution": "It purrs.",
    },
    "MMLU": {
        "question": "Which is it?",
        "subject": "zoology",
        "choices": ["a dog", "a cat", "a bird", "two"],
        "answer": 1,
    },
    "HellaSwag": {
        "ind": 24,
        "activity_label": "Pets",
        "ctx_a": "Which is it?",
        "ctx_b": "",
        "ctx": "Which is it?",
        "endings": ["a dog", "a cat", "a bird", "two"],
        "label": "1",
        "split_type": "indomain",
    },
    "SEED-Bench": {
        "answer": "B",
        "choice_a": "a dog",
        "choice_b": "a cat",
        "choice_c": "One",
        "choice_d": "Two",
        "data_type": "image",
        "question": "Which is it?",
        "question_id": "101669",
        "question_type_id": 1,
    },
    "LongBench v2": {
        "_id": "66f36490821e116aacb2cc22",
        "question": "Which is it?",
        "choice_A": "a dog",
        "choice_B": "a cat",
        "choice_C": "One",
        "choice_D": "Two",
        "answer": "B",
    },
    "MMMU": {
        "id": "validation_Biology_1",
        "question": "<image 1> Which is it?",
        "options": "['a dog', 'a cat', 'a bird']",
        "image_1": "p.png",
        "image_2": None,
        "answer": "B",
        "question_type": "multiple-choice",
    },
    "MMBench as JSON": {"index": 241, "question": "Which is it?", "A": "a dog", "B": "a cat", "C": None, "answer": "B"},
}


@pytest.mark.parametrize("values", PUBLISHED.values(), ids=PUBLISHED)
def test_files_of_others_are_read_as_they_are(read, values):
    file = read(values)
    assert file.bad_lines == []
    [question] = file.questions
    assert question.question.endswith("Which is it?")
    assert question.options[:2] == ("a dog", "a cat")
    assert question.options[question.answer] == "a cat"
    assert len(question.pictures) == (1 if "image_1" in values else 0)
    assert question.id == str(values.get("id", values.get("question_id", "line 1")))


def test_several_numbered_pictures_keep_their_order(read, tmp_path):
    (tmp_path / "q.png").write_bytes(png(7))
    file = read({**GOOD, "image_1": "q.png", "image_2": "p.png", "image_3": None})
    assert [file.picture(source) for source in file.questions[0].pictures] == [png(7), png()]


@pytest.mark.parametrize(
    "value",
    [
        "p.png",
        ["p.png"],
        "data:image/png;base64," + base64_of(png()),
        {"base64": base64_of(png())},
        base64_of(png(size=(40, 40))),
    ],
)
@pytest.mark.parametrize("key", ["picture", "pictures", "image", "images"])
def test_pictures_come_as_paths_or_base64(read, key, value):
    file = read(GOOD, {**GOOD, key: value})
    [source] = file.questions[1].pictures
    assert file.picture(source) in (png(), png(size=(40, 40)))


def test_several_pictures_keep_their_order(read, tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "q.png").write_bytes(png(7))
    inline = {"base64": base64_of(png(8))}
    file = read({**GOOD, "pictures": ["p.png", inline, "deep/q.png"]})
    assert [file.picture(source) for source in file.questions[0].pictures] == [png(), png(8), png(7)]


BAD_LINES = {
    '{"question": "cut': "not JSON",
    "[1, 2]": "not a JSON object, but list",
    "{" * 100_000: "not JSON",
    '{"answer": ' + "9" * 5000 + "}": "not JSON",
    json.dumps({**GOOD, "question": " "}): "there is no 'question'",
    json.dumps({**GOOD, "question": 3}): "'question' is not a text",
    json.dumps({**GOOD, "options": ["a", " "]}): "option B is empty",
    json.dumps({**GOOD, "options": ["a", None]}): "option B is not a text",
    json.dumps({**GOOD, "options": ["a"]}): "a choice needs options",
    json.dumps({**GOOD, "options": []}): "a choice needs options",
    json.dumps({**GOOD, "options": "a, b"}): "there are no 'options'",
    json.dumps({**GOOD, "options": {"A": "a", "C": "c"}}): "A, B, ... in order",
    json.dumps({key: value for key, value in GOOD.items() if key != "answer"}): "no right 'answer'",
    json.dumps({**GOOD, "answer": ""}): "no right 'answer'",
    json.dumps({**GOOD, "answer": None}): "no right 'answer'",
    json.dumps({**GOOD, "answer": "C"}): "none of its options",
    json.dumps({**GOOD, "answer": 2}): "none of its options",
    json.dumps({**GOOD, "answer": -1}): "none of its options",
    json.dumps({**GOOD, "answer": True}): "none of its options",
    json.dumps({**GOOD, "answer": "cat"}): "none of its options",
    json.dumps({**GOOD, "choices": ["a", "b"]}): "options are given twice: options and choices",
    json.dumps({**GOOD, "options": {"text": ["a", "b"], "label": ["A"]}}): "other labels than texts",
    json.dumps({**GOOD, "options": {"text": ["a", "b"], "label": ["A", "A"]}}): "same label",
    json.dumps({**GOOD, "options": {"text": ["a", "b"], "label": ["1", "2"]}, "answer": "0"}): "none of its options",
    json.dumps({**GOOD, "options": "[1"}): "list of options cannot be read",
    json.dumps({**GOOD, "picture": "p.png", "image_1": "p.png"}): "given twice",
    json.dumps({**GOOD, "picture": "nowhere.png"}): "its picture is not there",
    json.dumps({**GOOD, "picture": ""}): "no picture in 'picture'",
    json.dumps({**GOOD, "pictures": []}): "no picture in 'pictures'",
    json.dumps({**GOOD, "picture": 7}): "no picture in 'picture'",
    json.dumps({**GOOD, "picture": "p.png", "image": "p.png"}): "given twice",
    json.dumps({**GOOD, "picture": "http://example.org/p.png"}): "nothing is fetched",
    json.dumps({**GOOD, "picture": "q.jsonl"}): "its picture is broken",
    json.dumps({**GOOD, "picture": "."}): "its picture cannot be read",
    json.dumps({**GOOD, "picture": "p\u0000.png"}): "its picture cannot be read",
    json.dumps({**GOOD, "picture": {"base64": "?"}}): "no base64",
    json.dumps({**GOOD, "picture": {"base64": base64_of(png()[:60])}}): "its picture is broken",
    json.dumps({**GOOD, "picture": {"base64": ""}}): "its picture is broken",
    json.dumps({**GOOD, "picture": {"url": "x"}}): "no base64",
    json.dumps({**GOOD, "picture": "data:text/plain,hello"}): "without base64",
}


@pytest.mark.parametrize("line", BAD_LINES, ids=BAD_LINES.values())
def test_a_bad_line_is_told_by_its_number_and_costs_only_itself(read, line):
    file = read(GOOD, "", line, GOOD)
    assert [question.line for question in file.questions] == [1, 4]
    [bad] = file.bad_lines
    assert bad.line == 3
    assert BAD_LINES[line] in str(bad)
    assert "\n" not in str(bad)


def test_bytes_that_are_no_text_are_a_bad_line(tmp_path):
    good = json.dumps(GOOD).encode()
    (tmp_path / "q.jsonl").write_bytes(b"\xef\xbb\xbf" + good + b"\r\n" + b"\xff\xfe{}\n" + good)
    file = read_questions(tmp_path / "q.jsonl")
    assert [question.line for question in file.questions] == [1, 3]
    assert "not UTF-8" in str(file.bad_lines[0])


def test_the_second_of_two_ids_is_bad(read):
    file = read({**GOOD, "id": 7}, GOOD, {**GOOD, "id": "7"}, GOOD)
    assert [question.line for question in file.questions] == [1, 2, 4]
    assert str(file.bad_lines[0]) == "line 3: its id '7' is that of line 1 too"


def test_an_id_of_a_bad_line_is_free(read):
    file = read({**GOOD, "id": "x", "answer": "Z"}, {**GOOD, "id": "x"})
    assert [question.line for question in file.questions] == [2]


def test_there_is_no_such_file(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        read_questions(tmp_path / "q.jsonl")


def test_a_picture_that_went_away_is_told(read, tmp_path):
    file = read({**GOOD, "picture": "p.png"})
    (tmp_path / "p.png").unlink()
    with pytest.raises(ImageError, match="not there"):
        file.picture(file.questions[0].pictures[0])


@given(st.lists(st.one_of(st.just(json.dumps(GOOD)), st.text(max_size=30), st.sampled_from(list(BAD_LINES)))))
def test_any_lines_are_questions_or_bad(tmp_path_factory, lines):
    path = tmp_path_factory.mktemp("any") / "q.jsonl"
    lines = [line.replace("\n", " ").replace("\r", " ") for line in lines]
    path.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    file = read_questions(path)
    found = [each.line for each in (*file.questions, *file.bad_lines)]
    assert sorted(found) == [
        number for number, line in enumerate(lines, start=1) if line.encode("utf-8", "replace").strip()
    ]
    assert sum(line == json.dumps(GOOD) for line in lines) == len(file.questions)


def test_progress_counts_bytes(tmp_path):
    (tmp_path / "q.jsonl").write_text(f"{json.dumps(GOOD)}\n" * 3)
    told = []
    read_questions(tmp_path / "q.jsonl", on_progress=lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == [total // 3 * (place + 1) for place, (_, total) in enumerate(told)]
    assert told[-1][0] == told[-1][1]


# --- VLMEvalKit's tables ----------------------------------------------------------------------------------------------


def test_a_table_is_read(read_table):
    file = read_table(
        row(index=5, category="animals", hint="look"),
        row(index=6, C="two", D="three", answer="D"),
        row(index=7, image="5"),
        row(index=8, image=str([base64_of(png(1)), base64_of(png(2))])),
        columns=["index", "category", "hint", "question", "A", "B", "C", "D", "answer", "image"],
    )
    assert not file.bad_lines
    first, second, third, fourth = file.questions
    assert (first.id, first.line, first.category, first.hint, first.options) == (
        *("5", 2, "animals", "look"),
        ("a dog", "a cat"),
    )
    assert (second.options, second.answer) == (("a dog", "a cat", "two", "three"), 3)
    assert file.picture(third.pictures[0]) == file.picture(first.pictures[0]) == png()
    assert [file.picture(source) for source in fourth.pictures] == [png(1), png(2)]


def test_a_picture_may_be_that_of_a_row_behind_and_even_of_a_bad_one(read_table):
    file = read_table(row(index=1, image="2"), row(index=2, answer="Z", image=base64_of(png(3))))
    assert [question.id for question in file.questions] == ["1"]
    assert file.picture(file.questions[0].pictures[0]) == png(3)


def test_an_empty_cell_is_no_picture(read_table):
    file = read_table(row(), row(index=2, image=""), row(index=3, image="  "), row(index=4, image="2"))
    assert [len(question.pictures) for question in file.questions] == [1, 0, 0, 0]
    assert file.bad_lines == []
    both = read_table(row(index=1, image_path=""), row(index=2, image="", image_path="p.png"))
    assert [both.picture(question.pictures[0]) for question in both.questions] == [png(), png()]


def test_pictures_by_path(read_table):
    values = {key: value for key, value in row().items() if key != "image"}
    file = read_table({**values, "image_path": "p.png"}, {**values, "index": 2, "image_path": "['p.png', 'p.png']"})
    assert [len(question.pictures) for question in file.questions] == [1, 2]
    assert file.picture(file.questions[1].pictures[1]) == png()


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"image": "77"}, "that of row '77', where there is none"),
        ({"image": base64_of(png())[:80]}, "its picture is"),
        ({"image": "!" * 100}, "no base64"),
        ({"image": "[1"}, "list of pictures cannot be read"),
        ({"index": 1}, "its id '1' is that of line 2 too"),
        ({"answer": ""}, "no right 'answer'"),
        ({"answer": "C"}, "none of its options"),
        ({"B": ""}, "a choice needs options"),
        ({"B": "", "C": "x"}, "option B is empty"),
        ({"question": ""}, "there is no 'question'"),
    ],
)
def test_a_bad_row_is_told_by_its_line_and_costs_only_itself(read_table, changes, told):
    file = read_table(row(), row(**{"index": 2} | changes), row(index=3))
    assert [question.id for question in file.questions] == ["1", "3"]
    [bad] = file.bad_lines
    assert bad.line == 3
    assert told in str(bad)


def test_line_breaks_in_cells_are_kept_and_counted(read_table):
    file = read_table(row(question='two\nlines, "quoted"\tand a tab'), row(index=2, answer="Z"), row(index=3))
    assert file.questions[0].question == 'two\nlines, "quoted"\tand a tab'
    assert [question.line for question in file.questions] == [2, 5]
    assert file.bad_lines[0].line == 4
    assert file.picture(file.questions[1].pictures[0]) == png()


def test_a_quote_that_is_not_closed_costs_its_own_line(tmp_path):
    head = "index\tquestion\tA\tB\tanswer\n"
    good = "{}\tWhat?\tx\ty\tA\n"
    (tmp_path / "q.tsv").write_text(head + good.format(1) + '2\t"What?\tx\ty\tA\n' + good.format(3) + good.format(4))
    file = read_questions(tmp_path / "q.tsv")
    assert [question.id for question in file.questions] == ["1", "3", "4"]
    assert (file.bad_lines[0].line, len(file.bad_lines)) == (3, 1)
    assert "quote" in str(file.bad_lines[0])


def test_a_row_with_other_cells_than_columns_is_bad(tmp_path):
    head = "index\tquestion\tA\tB\tanswer\n"
    (tmp_path / "q.tsv").write_text(head + "1\tWhat?\tx\n" + "2\tWhat?\tx\ty\tA\textra\n" + "3\tWhat?\tx\ty\tA\n")
    file = read_questions(tmp_path / "q.tsv")
    assert [question.id for question in file.questions] == ["3"]
    assert [str(bad) for bad in file.bad_lines] == [
        "line 2: 3 cells, where the table has 5 columns",
        "line 3: 6 cells, where the table has 5 columns",
    ]


def test_a_table_without_the_columns_of_one_is_refused(tmp_path):
    (tmp_path / "q.tsv").write_text("question\tanswer\nWhat?\tyes\n")
    with pytest.raises(InputError, match="not a table of questions"):
        read_questions(tmp_path / "q.tsv")


def test_both_kinds_give_the_same_question(read, read_table):
    pictured = {"picture": {"base64": base64_of(png())}, "id": "9", "category": "c", "hint": "h"}
    [one] = read({**GOOD, **pictured}).questions
    [other] = read_table(row(index=9, category="c", hint="h")).questions
    for name in ("id", "question", "options", "answer", "category", "hint"):
        assert getattr(one, name) == getattr(other, name)
