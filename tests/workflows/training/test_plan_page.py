"""The page that shows a plan: its shares, and what the model will read of a sequence, pictures included."""

from dataclasses import replace

import pytest

from lensmith.data.documents import Conversation, ConversationTurn, PictureRef
from lensmith.data.mixture import Mixture
from lensmith.data.plan.packing import PackingConfig
from lensmith.data.plan.reading import Plan
from lensmith.data.plan.tokens import ChatPart
from lensmith.data.plan.writing import PlanConfig, PlanStage, write_plan
from lensmith.workflows.training.plan_page import plan_page
from tests.support.documents import MemorySource, byte_tokens

SOURCES = {
    "captions": MemorySource([("<red>", "a <b>red</b> square"), ("<green>", "green"), "no caption"]),
    "text": MemorySource([("One sentence. " * 40,)]),
}
TOKENS = byte_tokens()


@pytest.fixture(scope="module")
def html(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "plan.parquet"
    packing = PackingConfig(max_tokens=128, max_pictures=4)
    config = PlanConfig.of(mixture=Mixture.of(captions=0.5, text=0.5), packing=packing, sequences=20)
    write_plan(path, config, SOURCES, TOKENS)

    def decode(ids):
        return "".join(TOKENS.pieces[one] for one in ids)

    return plan_page(Plan(path), SOURCES, TOKENS, decode, title="a plan")


def test_each_source_is_drawn_once_with_its_shares(html):
    assert html.count("captions: sequence") == html.count("text: sequence") == 1
    assert "20 sequences of up to 128 tokens" in html
    assert "1 no caption" in html


def test_pictures_are_shown_and_texts_are_no_markup(html):
    assert "data:image/png;base64," in html
    assert "a &lt;b&gt;red&lt;/b&gt; square" in html
    assert "<script" not in html


def test_a_part_of_a_document_says_which(html):
    assert "0-" in html.split("text: sequence")[1]
    assert " of 562" in html, "14 characters 40 times, a begin and an end"


def test_what_is_not_learnt_of_a_conversation_is_pale(tmp_path):
    turns = (
        ConversationTurn(role="user", pieces=(PictureRef(place="red"), "What colour?")),
        ConversationTurn(role="assistant", pieces=("Red.",)),
    )
    source = MemorySource([()])
    source.document = lambda index: Conversation(key="c", turns=turns)
    tokens = replace(
        TOKENS,
        chat=lambda conversation: [ChatPart(content=piece, learnt=piece == "Red.") for piece in conversation.pieces],
    )
    stage = PlanStage(mixture=Mixture.of(talk=1.0), packing=PackingConfig(max_tokens=64, max_pictures=2), sequences=2)
    write_plan(tmp_path / "plan.parquet", PlanConfig(stages=(stage,)), {"talk": source}, tokens)

    def decode(ids):
        return "".join(tokens.pieces[one] for one in ids)

    html = plan_page(Plan(tmp_path / "plan.parquet"), {"talk": source}, tokens, decode, title="a plan")
    assert '<p class="given">What colour?</p><p>Red.&lt;end&gt;</p>' in html
    assert html.count("data:image/png") >= 1
