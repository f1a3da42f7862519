"""Conversations as models read them: in the format that people chat in, learning what the assistant says."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lensmith.core.errors import CheckpointError, ConfigError
from lensmith.core.types import Message, Picture
from lensmith.data.documents import BadRecordError, Conversation, ConversationTurn, PictureRef
from lensmith.data.mixture import Mixture
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.plan.reading import Plan, PlannedDocument, PlannedSequence
from lensmith.data.plan.tokens import Cutter, Span, encode
from lensmith.data.plan.writing import PlanConfig, PlanStage, write_plan
from lensmith.models import PictureConfig, VisionLanguageProcessor
from lensmith.models.config import IGNORED_LABEL
from lensmith.models.families.deepseek_vl.options import Exactness
from lensmith.models.families.deepseek_vl.pictures import DeepseekPictureConfig
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer as deepseek_tokenizer
from lensmith.models.families.mm1.processor import Mm1PictureConfig, Mm1Processor, tiny_tokenizer
from lensmith.train.objectives.documents import DocumentBatches, tokens_of
from tests.support.documents import picture

RED = PictureRef(place="red")
MM1 = Mm1Processor(tiny_tokenizer(), Mm1PictureConfig(image_px=28), 2)
DEEPSEEK = {
    exact: DeepseekVlProcessor(
        deepseek_tokenizer(), DeepseekPictureConfig(image_px=28, patch_px=14, exact=exact), tokens_per_picture=4
    )
    for exact in Exactness
}
ALL = {"mm1": MM1, **{f"deepseek {exact.value}": processor for exact, processor in DEEPSEEK.items()}}


def conversation(*said, system=None):
    """Pieces of each turn, the user's first."""
    roles = itertools.cycle(("user", "assistant"))
    turns = [ConversationTurn(role=next(roles), pieces=pieces) for pieces in said]
    if system:
        turns.insert(0, ConversationTurn(role="system", pieces=(system,)))
    return Conversation(key="c", turns=tuple(turns))


TALK = conversation((RED, "What?"), ("A cat.",), ("Sure?",), ("Yes.",))


def shown(processor, document):
    """The text that is read, with a picture's placeholders as one, and of it what is learnt, in brackets."""
    found = encode(document, tokens_of(processor))
    text = ""
    for learnt, group in itertools.groupby(range(len(found.ids_T)), key=lambda place: found.learnt_T[place]):
        piece = processor.tokenizer.decode(found.ids_T[list(group)])
        text += f"[{piece}]" if learnt else piece
    return text.replace(processor.image_token * processor.tokens_per_picture, "(picture)")


def test_mm1_learns_answers_and_the_end():
    assert shown(MM1, TALK) == "<s>(picture)What?[ A cat.]\nSure?[ Yes.</s>]"


def test_deepseek_learns_answers_and_the_end_of_each():
    end = DEEPSEEK[Exactness.ORIGINAL].tokenizer.eos_token
    begin = DEEPSEEK[Exactness.ORIGINAL].tokenizer.bos_token
    system = conversation(("Hello",), ("Hi.",), ("Bye",), ("Bye.",), system="Be short.")
    assert shown(DEEPSEEK[Exactness.ORIGINAL], system) == (
        f"{begin}Be short.\n\nUser: Hello\n\nAssistant:[ Hi.{end}]User: Bye\n\nAssistant:[ Bye.{end}]"
    )


WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\ue000\ue001"), min_size=1).filter(
    lambda text: text == text.strip() and "<" not in text
)
QUESTIONS = st.one_of(
    WORDS.map(lambda text: (text,)),
    WORDS.map(lambda text: (RED, text)),
    WORDS.map(lambda text: (text, RED)),
    st.tuples(WORDS, WORDS).map(lambda texts: (texts[0], RED, RED, texts[1])),
)


@pytest.mark.parametrize("name", ALL)
@given(data=st.data())
def test_a_model_is_trained_on_the_tokens_that_it_is_asked_with(name, data):
    """Against what chatting makes of the same messages: the whole prompt in one string, tokenised at once."""
    processor = ALL[name]
    pairs = data.draw(st.lists(st.tuples(QUESTIONS, WORDS), min_size=1, max_size=3))
    document = conversation(*(pieces for question, answer in pairs for pieces in (question, (answer,))))
    found = encode(document, tokens_of(processor))
    messages = [
        Message(
            role=turn.role, parts=tuple(Picture() if isinstance(piece, PictureRef) else piece for piece in turn.pieces)
        )
        for turn in document.turns
    ]
    for count in range(1, len(messages) + 1):
        text = processor.chat_text(messages[:count])
        text = text.replace(processor.image_token, processor.image_token * processor.tokens_per_picture)
        asked = processor.tokenizer(text)["input_ids"]
        assert found.ids_T[: len(asked)].tolist() == asked
        if count % 2:  # the answer begins where the prompt ends, and is learnt up to where the next one does
            assert not found.learnt_T[len(asked) - 1]
            assert found.learnt_T[len(asked)]
    # Bytes are tokens: so many answers, their spaces, and ends where the format writes them.
    spaces = sum(1 for question, answer in pairs if isinstance(question[-1], str)) if name == "mm1" else len(pairs)
    ends = 1 if name == "mm1" else len(pairs)
    assert found.learnt_T.sum() == sum(len(answer.encode()) for _, answer in pairs) + spaces + ends


def test_what_spells_a_special_token_stays_text():
    end = MM1.tokenizer.eos_token
    found = encode(conversation((f"a{end}",), (f"b{end}<s>",)), tokens_of(MM1))
    assert (found.ids_T == MM1.tokenizer.eos_token_id).sum() == 1
    assert (found.ids_T == MM1.tokenizer.bos_token_id).sum() == 1
    assert shown(MM1, conversation((f"a{end}",), ("b",))) == f"<s>a{end}[ b</s>]"


def test_a_processor_without_a_chat_format_is_refused():
    plain = VisionLanguageProcessor(tiny_tokenizer(), PictureConfig(patch_px=8, max_width_px=16, max_height_px=16), 4)
    with pytest.raises(ConfigError, match="chat format cannot be trained on"):
        encode(TALK, tokens_of(plain))


@pytest.mark.parametrize(
    ("roles", "problem"),
    [
        ("", "is empty"),
        ("s", "is empty"),
        ("a", "begin with the user"),
        ("u", "end with an answer"),
        ("uaa", "take turns"),
        ("usa", "take turns"),
    ],
)
def test_turns_that_make_no_conversation(roles, problem):
    names = {"s": "system", "u": "user", "a": "assistant"}
    with pytest.raises(BadRecordError, match=problem):
        Conversation(key="c", turns=tuple(ConversationTurn(role=names[one], pieces=("x",)) for one in roles))


# --- cutting, packing, labels -------------------------------------------------------------------------------------


class Talks:
    """Conversations in memory."""

    def __init__(self, talks):
        self.talks = talks
        self.fingerprint = str(len(talks))

    def __len__(self):
        return len(self.talks)

    def document(self, index):
        return self.talks[index]

    def picture(self, ref):
        return picture(ref.place)


def spans(document, max_tokens):
    tokens = tokens_of(MM1)
    found = encode(document, tokens)
    cut = list(Cutter(tokens, max_tokens=max_tokens, max_pictures=4).spans(found))
    return [MM1.tokenizer.decode(found.ids_T[span.start : span.stop]) for span in cut]


def test_a_long_conversation_is_cut_behind_an_answer():
    said = [words for number in range(4) for words in (f"Question {number}. More.", f"Answer {number}.")]
    document = conversation(*((words,) for words in said))
    assert spans(document, 64) == [
        "<s>Question 0. More. Answer 0.\nQuestion 1. More. Answer 1.",
        "\nQuestion 2. More. Answer 2.\nQuestion 3. More. Answer 3.</s>",
    ]
    # The first two turns have 56 tokens. Wherever a turn fits, no span is without an answer.
    assert spans(document, 55)[0] == "<s>Question 0. More. Answer 0."
    assert all("Answer" in text for size in range(32, 64) for text in spans(document, size))


def test_a_turn_that_fits_no_sequence_is_cut_as_documents_are():
    long = " ".join(["One sentence."] * 9)
    document = conversation(("Short?",), (long,), ("And?",), ("Yes.",))
    found = spans(document, 64)
    assert "".join(found) == f"<s>Short? {long}\nAnd? Yes.</s>"
    assert len(found) > 2
    assert all(text.endswith((".", "</s>")) for text in found)


def test_labels_are_the_answers_in_a_plan_and_its_batches(tmp_path):
    tokens = tokens_of(MM1)
    source = Talks([TALK, conversation(("Hi.",), ("Ho.",))] * 4)
    stage = PlanStage(
        mixture=Mixture.of(talk=1.0), packing=PackingConfig(max_tokens=64, max_pictures=4, max_waiting=4), sequences=6
    )
    write_plan(tmp_path / "plan.parquet", PlanConfig(stages=(stage,)), {"talk": source}, tokens)
    plan = Plan(tmp_path / "plan.parquet")
    batches = DocumentBatches(plan, {"talk": source}, tokens, MM1, sequences_per_step=2)
    batch = batches.batch_at(0, 0)
    learnt = batch.labels_1T[0] != IGNORED_LABEL
    assert (batch.labels_1T[0][learnt] == batch.input_ids_1T[0][learnt]).all()
    for begin, end in itertools.pairwise(batch.bounds):
        words = MM1.tokenizer.decode(batch.input_ids_1T[0, begin:end][learnt[begin:end]])
        assert words in (" A cat. Yes.</s>", " Ho.</s>")
    part = batches.batch_of([PlannedSequence(source="talk", documents=(PlannedDocument(0, Span(15, 27, 0)),))])
    kept = part.labels_1T[0, :12] != IGNORED_LABEL  # behind it stands the blank picture
    assert MM1.tokenizer.decode(part.input_ids_1T[0, :12]) == "\nSure? Yes.</s>"
    assert MM1.tokenizer.decode(part.input_ids_1T[0, :12][kept]) == " Yes.</s>"


def test_a_span_of_a_question_alone_is_left_out_of_a_plan(tmp_path):
    tokens = tokens_of(MM1)
    source = Talks([conversation(("A sentence. " * 9 + "What?",), ("That.",))])
    stage = PlanStage(
        mixture=Mixture.of(talk=1.0), packing=PackingConfig(max_tokens=64, max_pictures=4, max_waiting=4), sequences=4
    )
    report = write_plan(tmp_path / "plan.parquet", PlanConfig(stages=(stage,)), {"talk": source}, tokens).sources[
        "talk"
    ]
    plan = Plan(tmp_path / "plan.parquet")
    assert report.unlearnt == report.documents == report.cut > 0
    for number in range(4):
        for planned in plan.sequence(number).documents:
            learnt_T = encode(source.document(0), tokens).learnt_T[planned.span.start : planned.span.stop]
            assert learnt_T.sum() == len(" That.") + 1


def test_a_plan_is_refused_for_another_chat_format(tmp_path):
    source = Talks([TALK])
    stage = PlanStage(mixture=Mixture.of(talk=1.0), packing=PackingConfig(max_tokens=512), sequences=2)
    one, other = (tokens_of(DEEPSEEK[exact]) for exact in (Exactness.ORIGINAL, Exactness.TRANSFORMERS))
    write_plan(tmp_path / "plan.parquet", PlanConfig(stages=(stage,)), {"talk": source}, one)
    Plan(tmp_path / "plan.parquet").check({"talk": source}, one)
    with pytest.raises(CheckpointError, match="made from something else: chat_format"):
        Plan(tmp_path / "plan.parquet").check({"talk": source}, other)
