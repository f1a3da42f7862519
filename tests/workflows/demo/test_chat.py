"""The demonstration's conversation: with a tiny model, and with published weights where the Hub's cache has them."""

import pytest
from PIL import Image

from lensmith.models.families.deepseek_vl import CheckpointLayout
from lensmith.workflows.demo.chat import QUESTIONS, chat_chapter, run_chat
from tests.support.tiny_deepseek import save_as, tiny_model

PICTURE = Image.linear_gradient("L").convert("RGB")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_without_published_weights_the_model_is_tiny_and_the_report_says_so(cache):
    result = run_chat(PICTURE)
    first, second = result.replies
    assert not result.is_published
    assert "means nothing" in chat_chapter(result).lead
    assert second.known_tokens >= first.prompt_tokens, "the picture and the first exchange are not read again"
    assert second.prompt_tokens > second.known_tokens


def test_published_weights_in_the_cache_are_used(cache):
    name = cache / "models--deepseek-ai--deepseek-vl-1.3b-chat"
    (name / "refs").mkdir(parents=True)
    (name / "refs" / "main").write_text("0" * 40)
    (name / "snapshots").mkdir()
    save_as(name / "snapshots" / ("0" * 40), tiny_model("mlp"), CheckpointLayout.ORIGINAL)
    result = run_chat(PICTURE)
    assert (result.name, result.is_published) == ("deepseek-ai/deepseek-vl-1.3b-chat", True)
    chapter = chat_chapter(result)
    assert "deepseek-ai/deepseek-vl-1.3b-chat" in chapter.lead
    assert [row[0] for row in chapter.rows[1:]] == list(QUESTIONS)
