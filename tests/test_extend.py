"""recipes/extend_preferences.py: pairs by translation and by sampling; every row becomes a pair or a counted reject,
and a kill costs nothing."""
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import prepare
import train
from corpus import chat
from recipes import extend_preferences as recipe


def jsonl(path, rows):
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return path


def rows(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def go(out, **settings):
    recipe.main([f"{k}={v!r}" if not isinstance(v, str) else f"{k}={v}"
                 for k, v in (dict(out=str(out)) | settings).items()])
    return rows(out / "preferences.jsonl"), json.loads((out / "account.json").read_text())


# ---------------------------------------------------------------------- translations

def test_pairs_are_translated_whole_or_line_by_line(tmp_path):
    pairs = [{"prompt": "Hi", "chosen": "Hello.", "rejected": "No."},
             {"prompt": "Hi\n\nBye", "chosen": "Hello.\nNo.", "rejected": "No."},
             {"prompt": "Hi", "chosen": "Not translated.", "rejected": "No."},
             {"prompt": "Hi", "chosen": "Yes.", "rejected": "Aye."},
             {"prompt": "Hi", "chosen": "No.", "rejected": "No."}]
    jsonl(tmp_path / "en.jsonl", pairs)
    (tmp_path / "en-kk.tsv").write_text("Hi\tСәлем\nHello.\tСәлеметсіз бе.\nNo.\tЖоқ.\nBye\tСау "
                                        "бол\nYes.\tИә.\nAye.\tИә.\nHi\tбасқа\nx\n")
    kept, book = go(tmp_path / "out", pairs=str(tmp_path / "en.jsonl"), translations=str(tmp_path / "*.tsv"))
    said = [[[m["content"] for m in row[side]] for side in ("chosen", "rejected")] for row in kept]
    assert said == [[["Сәлем", "Сәлеметсіз бе."], ["Сәлем", "Жоқ."]],
                    [["Сәлем\n\nСау бол", "Сәлеметсіз бе.\nЖоқ."], ["Сәлем\n\nСау бол", "Жоқ."]]]
    assert book == {"read": 5, "kept": 2, "dropped": {"pair: chosen and rejected are identical": 2,
                                                      "translation: a text has none": 1}}
    assert [r["line"] for r in rows(tmp_path / "out/rejects.jsonl")] == [3, 4, 5]
    # prepare.py reads it
    assert all(d.reason is None for d in chat.read_chats(tmp_path / "out/preferences.jsonl", "preference"))


# ---------------------------------------------------------------------- sampling

@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A model that has half learned to say two letters the other way round, and the questions it learned from."""
    folder = tmp_path_factory.mktemp("trained")
    jsonl(folder / "chat.jsonl", [{"messages": [{"role": "user", "content": f"{a} and {b}"},
                                                {"role": "assistant", "content": f"{b} {a}"}]}
                                  for a in "abcdefgh" for b in "abcdefgh"])
    source = dict(name="chat", path="chat.jsonl", category="chat", language="en", kind="chat")
    prepare.main([f"{k}={v!r}" for k,
                  v in dict(raw=str(folder), out=str(folder / "data"), sources=[source], language_names={},
                                                valid_fraction=0.0,
                                               vocab_size=280, template="chatml", workers=1).items()])
    with pytest.MonkeyPatch.context() as m:
        m.setattr(torch.cuda, "is_available", lambda: False)
        train.main([f"{k}={v!r}" for k, v in dict(
            data=str(folder / "data"), out=str(folder / "model"), mixture={"chat": 1}, tokens=60 * 160, seq_len=40,
            batch_size=4, micro_batch_size=4, lr=1e-2,
            threads=1, dtype="float32", vocab_size=280, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            initializer_range=0.2,
            log_every=1000, eval_every=1000, max_epochs=1e9).items()])
    return folder


SOME = dict(samples=4, max_new=12, batch=8)


@pytest.fixture(scope="module")
def ranked(trained, tmp_path_factory):
    out = tmp_path_factory.mktemp("ranked") / "out"
    return out, *go(out, questions=str(trained / "chat.jsonl"), model=str(trained / "model"), **SOME)


def test_right_answers_are_chosen_over_wrong_ones(ranked):
    out, kept, book = ranked
    assert book["read"] == 64 == book["kept"] + sum(book["dropped"].values()) and book["kept"] == len(kept) > 5
    assert set(book["dropped"]) <= {"judge: no two answers far enough apart",
                                    "judge: fewer than two answers that it could rate"}
    for row in kept:
        a, b = row["chosen"][0]["content"].split(" and ")
        # marks do not matter
        best, worst = (re.findall("[a-z]+", row[side][1]["content"]) for side in ("chosen", "rejected"))
        assert best == [b, a] != worst and row["chosen"][0] == row["rejected"][0]


def test_a_killed_run_goes_on(ranked, trained, tmp_path):
    """Cut anywhere, the same files come out, and what was there is not asked again."""
    out, kept, _ = ranked
    whole = (out / "answers.jsonl").read_bytes()
    for at in (0, 30, len(whole) // 3, len(whole) - 1):
        (tmp_path / str(at)).mkdir()
        (tmp_path / str(at) / "answers.jsonl").write_bytes(whole[:at])
        assert go(tmp_path / str(at), questions=str(trained / "chat.jsonl"), model=str(trained / "model"),
                  **SOME)[0] == kept
        assert (tmp_path / str(at) / "answers.jsonl").read_bytes() == whole
    with pytest.raises(ValueError, match="answers.jsonl is of other settings or questions; delete it"):
        go(out, questions=str(trained / "chat.jsonl"), model=str(trained / "model"), **SOME | dict(seed=1))


class Judge(BaseHTTPRequestHandler):
    """Rates an answer by the number of its characters; says nothing that counts of one that begins with "a"."""

    def do_POST(self):
        prompt = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["messages"][0]["content"]
        text = re.search(r"and answered:\n\n(.*?)\n\nHow good", prompt, re.S)[1]
        verdict = "Rating: none" if text.startswith("a") else f"Rating: 3 at first.\nRating: {min(10, 1 + len(text))}"
        body = json.dumps({"choices": [{"message": {"content": verdict}, "finish_reason": "stop"}]}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


def test_a_judge_behind_an_address(ranked, trained, tmp_path):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        kept, book = go(tmp_path / "out", questions=str(trained / "chat.jsonl"), model=str(trained / "model"), gap=1.0,
                        name="m",
                        judge=f"http://127.0.0.1:{server.server_port}/v1", **SOME)
    finally:
        server.shutdown()
    answers, before = ((folder / "answers.jsonl").read_text().split("\n") for folder in (tmp_path / "out", ranked[0]))
    assert answers[1:] == before[1:]
    assert book["kept"] == len(kept) and book["read"] == 64
    for row in kept:
        best, worst = row["chosen"][1]["content"], row["rejected"][1]["content"]
        assert len(best) > len(worst) and not best.startswith("a") and not worst.startswith("a")


def test_a_judge_that_is_a_checkpoint(trained, tmp_path):
    """A model that never says a number rates nothing: every row is counted."""
    with pytest.raises(ValueError, match="nothing is left"):
        go(tmp_path / "out", questions=str(trained / "chat.jsonl"), model=str(trained / "model"),
           judge=str(trained / "model"), **SOME)
    book = json.loads((tmp_path / "out/account.json").read_text())
    assert book == {"read": 64, "kept": 0, "dropped": {"judge: fewer than two answers that it could rate": 64}}


@pytest.mark.parametrize("verdict, number", [("Rating: 7", 7), ("It is bad.\n**Rating:** 2.5", 2.5),
                                             ("rating 3, no: Rating: 4", 4),
                                             ("Rating: 11", None), ("Rating: ten", None), ("", None), ("7", None)])
def test_what_a_verdict_says(verdict, number):
    assert recipe.parse_rating(verdict) == number


@pytest.mark.parametrize("settings, message", [
    (dict(pairs="x"), "give pairs= and translations=, or questions= and model=; got pairs"),
    (dict(pairs="x", translations="y", model="z"), "got pairs and translations and model"), ({}, "got none"),
    (dict(questions="x", model="y", judge="http://z"), "name= is the judge's at a server"),
    (dict(questions="x", model="y", samples=1), "samples must be 2 or more"),
    (dict(questions="nowhere/*", model="y"), "nowhere/*: no such file")])
def test_misuse(tmp_path, settings, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        go(tmp_path / "out", **settings)


def test_a_model_without_a_template(trained, tmp_path):
    import shutil
    shutil.copytree(trained / "model", tmp_path / "model")
    (tmp_path / "model/chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="its tokenizer has no chat template"):
        go(tmp_path / "out", questions=str(trained / "chat.jsonl"), model=str(tmp_path / "model"), **SOME)
