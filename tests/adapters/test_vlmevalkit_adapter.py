"""The adapter on VLMEvalKit's base class, here the part of it that the adapter meets (its commit e8e78f0)."""

import sys
import types

import pytest

from lensmith.core.endpoint import Request
from lensmith.core.errors import InputError
from lensmith.core.types import Message, Picture
from lensmith.models.scoring.model import ScoredModel


class BaseModel:
    """What VLMEvalKit's own does: checks a list of parts, and hands it on."""

    INTERLEAVE = False
    allowed_types = ("text", "image", "video")

    def __init__(self):
        self.dump_image_func = None

    def generate(self, message, dataset=None):
        assert all(part["type"] in self.allowed_types for part in message)
        return self.generate_inner(message, dataset)


@pytest.fixture
def adapter(monkeypatch):
    """The module, with a VLMEvalKit that has no models."""
    for name, content in (
        ("vlmeval", {}),
        ("vlmeval.vlm", {}),
        ("vlmeval.vlm.base", {"BaseModel": BaseModel}),
        ("vlmeval.config", {"supported_VLM": {}}),
    ):
        module = types.ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.delitem(sys.modules, "lensmith.adapters.vlmevalkit", raising=False)
    from lensmith.adapters import vlmevalkit  # noqa: PLC0415  # needs the modules above

    yield vlmevalkit
    sys.modules.pop("lensmith.adapters.vlmevalkit", None)


def test_it_writes_what_the_model_writes(adapter, picture_folder, questions_folder):
    path = questions_folder / "0.png"
    adapter.register("tiny", str(picture_folder), max_new_tokens=8)
    model = sys.modules["vlmeval.config"].supported_VLM["tiny"]()
    assert isinstance(model, BaseModel)
    text = model.generate([{"type": "image", "value": str(path)}, {"type": "text", "value": "What is it?"}], "MMBench")
    message = Message(role="user", parts=(Picture(data=path.read_bytes()), "What is it?"))
    [expected] = ScoredModel.load(picture_folder).write([Request(messages=(message,), max_tokens=8, temperature=0.0)])
    assert text == expected.strip()
    turns = [
        {"role": "user", "content": [{"type": "text", "value": "Hello."}]},
        {"role": "assistant", "content": [{"type": "text", "value": "Hello?"}]},
        {"role": "user", "content": [{"type": "image", "value": str(path)}]},
    ]
    assert model.chat_inner(turns) != text


def test_what_it_cannot_do_is_refused(adapter, picture_folder):
    with pytest.raises(InputError, match="unknown arguments"):
        adapter.LensmithVLM(str(picture_folder), nonsense=1)
    model = adapter.LensmithVLM(str(picture_folder))
    with pytest.raises(InputError, match="only words and pictures"):
        model.generate([{"type": "video", "value": "v.mp4"}])
