"""`lensmith chat` with tiny random models: in this process, and as a program at a terminal."""

import io
import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, LlamaConfig

from lensmith.cli.app import app, run
from lensmith.cli.chat import Console
from lensmith.core.endpoint import Request
from lensmith.core.exposure import Exposure
from lensmith.core.types import Message, Picture
from lensmith.models import VisionLanguageModel
from lensmith.models.families.deepseek_vl import load
from lensmith.models.families.deepseek_vl.config import tiny_config
from lensmith.models.families.deepseek_vl.processor import DeepseekVlProcessor
from lensmith.models.families.deepseek_vl.tokenizer import tiny_tokenizer
from lensmith.models.inference.endpoint import Answering, LocalEndpoint
from lensmith.models.inference.loading import load_answering
from lensmith.models.inference.prompts import TextPrompts
from lensmith.serve.engine import Engine
from lensmith.serve.run import running
from lensmith.workflows.chat.conversation import Chat, ChatSettings
from lensmith.workflows.chat.local import local_speaker

TEMPLATE = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
LIMIT_S = 120
# Only the terminal that controls a session turns Ctrl-C into a signal.
AT_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
sys.argv = ["lensmith", *sys.argv[1:]]
from lensmith.cli import main
main()
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny DeepSeek-VL as lensmith saves it."""
    made = tmp_path_factory.mktemp("models") / "tiny-vl"
    torch.manual_seed(0)
    config = tiny_config("mlp")
    VisionLanguageModel(config).save_pretrained(made)
    DeepseekVlProcessor.for_model(config, tiny_tokenizer()).save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def text_folder(tmp_path_factory):
    """A text-only model that goes on for as long as it is let."""
    made = tmp_path_factory.mktemp("models") / "tiny-text"
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
        vocab_size=260,
        max_position_embeddings=1 << 20,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=2,
        initializer_range=0.3,
        tie_word_embeddings=False,
    )
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        model.lm_head.weight[:4] = 0  # no special tokens
    model.save_pretrained(made)
    tiny_tokenizer().save_pretrained(made)
    return made


@pytest.fixture
def lensmith(monkeypatch, capsys, tmp_path):
    """Runs `lensmith chat` in this process, in an empty folder; gives status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a.png", "b.png")):
        pixels = np.random.default_rng(seed).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(name)

    def call(*arguments, lines=()):
        monkeypatch.setattr(sys, "argv", ["lensmith", "chat", *map(str, arguments)])
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        with pytest.raises(SystemExit) as caught:
            run(app)
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return call


def answers(folder, *conversation, max_tokens=12):
    """What the model says to a conversation that it reads afresh."""
    model, processor = load(folder, dtype=torch.float32)
    request = Request(messages=tuple(conversation), max_tokens=max_tokens, temperature=0.0)
    [answer] = LocalEndpoint(model, processor).answer([request])
    return answer.choices[0].text.strip()


def user(*parts):
    shown = (Picture(data=part.read_bytes()) if isinstance(part, Path) else part for part in parts)
    return Message(role="user", parts=tuple(shown))


# --- one question -------------------------------------------------------------------------------------------------


def test_one_question_about_two_pictures(lensmith, folder):
    status, out, err = lensmith("a.png", "b.png", "Which?", "--model", folder, "--max-tokens", 12)
    assert status == 0, err
    assert out.strip() == answers(folder, user(Path("a.png"), Path("b.png"), "Which?"))
    assert "cut at --max-tokens" in err


def test_json_tells_tokens_and_times(lensmith, folder):
    status, out, err = lensmith("a.png", "What?", "--model", folder, "--max-tokens", 12, "--json")
    assert status == 0, err
    [line] = out.splitlines()
    told = json.loads(line)
    assert told["answer"] == answers(folder, user(Path("a.png"), "What?"))
    assert (told["tokens"], told["finish"], told["pictures"]) == (12, "length", 1)
    assert told["prompt_tokens"] > 16
    assert 0 < told["first_s"] < told["seconds"]
    assert told["tokens_per_s"] == pytest.approx(11 / (told["seconds"] - told["first_s"]))


def test_settings_reach_the_model(lensmith, folder):
    def ask(*options):
        status, out, err = lensmith("Hi", "--model", folder, "--json", "--max-tokens", 12, *options)
        assert status == 0, err
        return json.loads(out)

    plain = ask()
    assert ask("--system", "")["prompt_tokens"] == len("User: Hi\n\nAssistant:") + 1
    assert ask("--system", "Be short.")["answer"] != plain["answer"]
    sampled = [ask("--temperature", 2, "--seed", seed)["answer"] for seed in (1, 1, 2)]
    assert sampled[0] == sampled[1] != sampled[2]
    assert ask("--temperature", 2, "--top-p", 0.0001)["answer"] == plain["answer"]
    stop = plain["answer"][4]
    assert ask("--stop", stop)["answer"] == plain["answer"].partition(stop)[0].strip()
    assert ask("--dtype", "bfloat16")["tokens"] == ask("--dtype", "int8")["tokens"] == 12


def test_a_phones_picture_can_be_seen_upright(lensmith, folder):
    exif = Image.Exif()
    exif[0x0112] = 6
    sideways = Image.fromarray(np.random.default_rng(3).integers(0, 256, (30, 60, 3), dtype=np.uint8))
    sideways.save("phone.png", exif=exif)
    sideways.save("sideways.png")
    sideways.transpose(Image.Transpose.ROTATE_270).save("upright.png")

    def ask(picture, *options):
        status, out, err = lensmith(picture, "What?", "--model", folder, "--max-tokens", 12, *options)
        assert status == 0, err
        return out

    assert ask("phone.png") == ask("sideways.png") != ask("upright.png")
    for reads in ("upright", "as-seen"):
        assert ask("phone.png", "--picture-decoding", reads) == ask("upright.png")
    assert ask("phone.png", "--exact", "transformers", "--picture-decoding", "stored") == ask(
        "sideways.png", "--exact", "transformers"
    )


def test_transformers_prompt_can_be_had(lensmith, folder):
    lengths = []
    for exact in ("original", "transformers"):
        status, out, err = lensmith("Hi", "--model", folder, "--json", "--system", "Be short.", "--exact", exact)
        assert status == 0, err
        lengths.append(json.loads(out)["prompt_tokens"])
    assert lengths[1] > lengths[0] + 100  # the default system text stands before the other


# --- a conversation -----------------------------------------------------------------------------------------------


def test_a_conversation_is_remembered_and_not_read_again(lensmith, folder):
    lines = ["/picture a.png", "/picture 'b.png'", "Which?", "", "Why?", "And?", "/clear", "Which?"]
    status, out, err = lensmith("--model", folder, "--max-tokens", 12, "--json", lines=lines)
    assert status == 0, err
    first, second, third, afresh = map(json.loads, out.splitlines())
    asked = [user(Path("a.png"), Path("b.png"), "Which?")]
    assert first["answer"] == answers(folder, *asked)
    asked += [Message(role="assistant", parts=(first["answer"],)), user("Why?")]
    assert second["answer"] == answers(folder, *asked)
    assert second["known_tokens"] >= first["prompt_tokens"] - 1
    asked += [Message(role="assistant", parts=(second["answer"],)), user("And?")]
    assert third["answer"] == answers(folder, *asked)
    assert second["pictures"] == afresh["pictures"] == 0
    assert afresh["answer"] == answers(folder, user("Which?"))
    assert "(2 attached to the next question)" in err
    assert "(cleared)" in err


def test_pictures_without_a_question_wait_for_one(lensmith, folder):
    status, out, err = lensmith("a.png", "--model", folder, "--max-tokens", 12, lines=["What?", "/exit", "never read"])
    assert status == 0, err
    assert out.splitlines()[0] == answers(folder, user(Path("a.png"), "What?")).splitlines()[0]


def test_what_goes_wrong_with_a_line_is_told_and_the_next_is_read(lensmith, folder):
    Path("broken.png").write_text("text")
    lines = ["/picture nowhere.png", "/picture broken.png", "/pictures", "x" * 5000, "Hi"]
    status, out, err = lensmith("--model", folder, "--max-tokens", 12, "--json", lines=lines)
    assert status == 0, err
    for words in ("nowhere.png", "is not a picture", "/pictures: not a command", "longer than the model can read"):
        assert words in err
    [reply] = map(json.loads, out.splitlines())
    assert reply["answer"] == answers(folder, user("Hi"))


# --- who answers --------------------------------------------------------------------------------------------------


def test_a_text_only_model_without_a_chat_template_gets_a_dialogue(lensmith, text_folder):
    status, out, err = lensmith("--model", text_folder, "--max-tokens", 8, "--json", lines=["Hi", "Why?"])
    assert status == 0, err
    first, second = map(json.loads, out.splitlines())
    assert first["prompt_tokens"] == len("User: Hi\nAssistant:") + 1
    assert second["prompt_tokens"] > first["prompt_tokens"]
    assert lensmith("Hi", "--model", text_folder, "--max-tokens", 8)[1].strip() == first["answer"]


def test_a_dialogue_ends_where_the_next_question_would_begin(text_folder):
    speaker = local_speaker(str(text_folder))
    asked = []
    speaker.answering.prompts.prompt = lambda request: (
        asked.append(request) or TextPrompts.prompt(speaker.answering.prompts, request)
    )
    chat = Chat(speaker, ChatSettings(system="Be short.", max_tokens=3, stop=("!",)))
    first = chat.ask("Hi")
    chat.ask("Why?")
    assert asked[0].prompt == "Be short.\nUser: Hi\nAssistant:"
    assert asked[1].prompt == f"Be short.\nUser: Hi\nAssistant: {first.answer}\nUser: Why?\nAssistant:"
    assert asked[1].stop == ("!", "\nUser:")


def test_a_text_only_model_with_one(lensmith, text_folder, tmp_path):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    model = AutoModelForCausalLM.from_pretrained(text_folder)
    for part in (model, tokenizer):
        part.save_pretrained("chat")
    given = ("--model", "chat", "--system", "S", "--max-tokens", 8, "--json")
    status, out, err = lensmith("Hi", *given)
    assert status == 0, err
    assert json.loads(out)["prompt_tokens"] == len("[system]S[user]Hi[assistant]")


def test_an_answer_is_not_read_again(text_folder, lensmith):
    model = AutoModelForCausalLM.from_pretrained(text_folder)
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = TEMPLATE
    letters = tokenizer("abcdefghij")["input_ids"][1:]
    with torch.no_grad():  # an answer of letters is taken apart as it was written
        others = [token for token in range(260) if token not in letters]
        model.lm_head.weight[others] = 0
        model.lm_head.weight[letters[0]] += 0.01
    for part in (model, tokenizer):
        part.save_pretrained("letters")
    given = ("--model", "letters", "--max-tokens", 20, "--json")
    status, out, err = lensmith(*given, lines=["Hi", "Why?", "So?"])
    assert status == 0, err
    first, second, third = map(json.loads, out.splitlines())
    assert first["answer"].isalpha()
    # The last token of an answer was written, but not read.
    assert second["known_tokens"] == first["prompt_tokens"] + 19
    assert third["known_tokens"] == second["prompt_tokens"] + 19
    endpoint = LocalEndpoint(model, tokenizer)
    asked = []
    for question, reply in zip(("Hi", "Why?", "So?"), (first, second, third), strict=True):
        asked.append(user(question))
        [fresh] = endpoint.answer([Request(messages=tuple(asked), max_tokens=20, temperature=0.0)])
        assert reply["answer"] == fresh.choices[0].text
        asked.append(Message(role="assistant", parts=(reply["answer"],)))


def test_an_endpoint_gives_the_same_answers(lensmith, folder):
    model, processor = load(folder, dtype=torch.float32)
    answering = Answering.of(model, processor, name="tiny-vl")
    lines = ["/picture b.png", "And?"]
    with running(Engine(answering, Exposure(), slots=2)) as url:
        status, out, err = lensmith("a.png", "What?", "--endpoint", url, "--max-tokens", 12)
        assert status == 0, err
        assert out.strip() == answers(folder, user(Path("a.png"), "What?"))
        status, out, err = lensmith("--endpoint", url, "--model", "tiny-vl", "--json", "--max-tokens", 12, lines=lines)
        assert status == 0, err
    told = json.loads(out)
    assert told["answer"] == answers(folder, user(Path("b.png"), "And?"))
    assert told["tokens"] is None
    assert told["seconds"] > 0


def test_a_folder_is_found_to_be_deepseek_vl(folder):
    answering = load_answering(folder)
    assert answering.name == "tiny-vl"
    assert answering.prompts.reads_pictures


# --- what cannot be used ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.png", "What?"], "nowhere.png"),
        (["nowhere.png"], "nowhere.png"),
        (["broken.png", "What?"], "is not a picture"),
        (["Hi", "--model", "no/such/model"], "no/such/model"),
        (["Hi", "--model", "."], "no language model"),
        (["Hi", "--model", "damaged"], "damaged"),
        (["Hi", "--dtype", "float8"], "no such precision"),
        (["Hi", "--exact", "mine"], "no such variant"),
        (["Hi", "--picture-decoding", "sideways"], "stored or upright or as-seen"),
        (["Hi", "--endpoint", "http://127.0.0.1:9/v1", "--exact", "original"], "--endpoint"),
        (["Hi", "--endpoint", "http://127.0.0.1:9/v1", "--picture-decoding", "stored"], "--endpoint"),
        (["Hi", "--device", "abacus"], "no such device"),
        (["Hi", "--temperature", "-1"], "temperature"),
        ([""], "nothing to ask"),
        (["x" * 5000], "longer than the model can read"),
        (["Hi", "--endpoint", "nowhere"], "http://"),
    ],
)
def test_what_cannot_be_used_is_named(lensmith, folder, arguments, said):
    Path("broken.png").write_text("text")
    Path("damaged").mkdir()
    Path("damaged/config.json").write_text('{"model_type": "multi_modality"}')
    given = arguments if "--model" in arguments or "--endpoint" in arguments else [*arguments, "--model", folder]
    status, out, err = lensmith(*given)
    assert (status, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_a_model_must_be_named(lensmith):
    status, _, err = lensmith("Hi")
    assert status == 2
    assert "which model?" in err


def test_pictures_for_a_text_only_model_are_refused(lensmith, text_folder):
    status, out, err = lensmith("a.png", "What?", "--model", text_folder)
    assert (status, out) == (2, "")
    assert "reads no pictures" in err
    status, out, err = lensmith("--model", text_folder, "--max-tokens", 4, lines=["/picture a.png", "Hi"])
    assert status == 0
    assert "reads no pictures" in err
    assert out.strip()


def test_only_deepseek_vl_reads_pictures_in_several_ways(lensmith, text_folder):
    status, _, err = lensmith("Hi", "--model", text_folder, "--picture-decoding", "stored")
    assert status == 2
    assert "reads pictures in one way" in err
    status, _, err = lensmith("Hi", "--model", text_folder, "--picture-decoding", "as-seen", "--max-tokens", 2)
    assert status == 0, err


def test_bytes_that_are_no_text_do_no_harm(lensmith, folder, monkeypatch):
    status, out, err = lensmith("caf\udce9?", "--model", folder, "--max-tokens", 4)
    assert (status, out.strip()) == (0, answers(folder, user("caf??"), max_tokens=4)), err


def test_input_that_is_no_text_is_refused(folder, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "lensmith.cli", "chat", "--model", folder],
        input=b"caf\xe9\n",
        capture_output=True,
        cwd=tmp_path,
        env=os.environ | {"PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"},
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert b"the input is not text" in done.stderr


def test_talking_to_an_endpoint_needs_no_model_library():
    program = (
        "import sys, lensmith.cli.chat, lensmith.workflows.chat.conversation, lensmith.workflows.chat.session;"
        "print(*{'torch', 'transformers'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_what_a_terminal_would_obey_is_not_shown(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    Console(None, as_json=False).text("a\x1b[2J\x07b\n\x9bc")
    assert capsys.readouterr().out == "a[2Jb\nc"


# --- at a terminal ------------------------------------------------------------------------------------------------


class AtTerminal:
    """A program whose input and output are a terminal."""

    def __init__(self, *arguments, cwd):
        self.end, other = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", AT_TERMINAL, *map(str, arguments)],
            stdin=other,
            stdout=other,
            stderr=other,
            cwd=cwd,
            env=os.environ | {"TERM": "dumb", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )
        os.close(other)
        self.seen = ""

    def type(self, text):
        os.write(self.end, text.encode())

    def until(self, pattern, *, press=""):
        """Reads until the pattern comes, and takes what was read up to there; `press` is typed until it does."""
        deadline = time.monotonic() + LIMIT_S
        while (found := re.search(pattern, self.seen, re.DOTALL)) is None:
            assert time.monotonic() < deadline, f"{pattern!r} did not come: {self.seen!r}"
            self.type(press)
            ready, _, _ = select.select([self.end], [], [], 0.5)
            if ready:
                self.seen += os.read(self.end, 4096).decode(errors="replace")
        taken, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return taken

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.end)


def test_at_a_terminal_ctrl_c_stops_the_answer_and_keeps_the_session(text_folder, tmp_path):
    terminal = AtTerminal("chat", "--model", text_folder, "--max-tokens", 100_000, cwd=tmp_path)
    try:
        assert "tiny-text (/help for commands)" in terminal.until("> ")
        terminal.type("Go on\n")
        terminal.until(r"Go on\r\n.{40}")  # the answer comes piece by piece, long before it is complete
        terminal.type("\x03")
        terminal.until(r"\(stopped\)")
        terminal.until("> ")
        # Python misses a Ctrl-C in the moment between showing a prompt and waiting for a line.
        terminal.until("Ctrl-D to leave", press="\x03")
        terminal.type("/help\n")
        terminal.until("/picture FILE")
        terminal.type("Once more\n")
        terminal.until(r"Once more\r\n.{40}")
        terminal.type("\x03")
        terminal.until(r"\(stopped\)")
        terminal.type("/exit\n")
        assert terminal.process.wait(timeout=LIMIT_S) == 0
    finally:
        terminal.close()
