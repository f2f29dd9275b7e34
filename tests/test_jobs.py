"""corpus/jobs: one run in a folder, no process outlives its parent, a rank that fails ends the others and says why."""
import errno
import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from test_prepare import SOURCES, document, jsonl, messages_of, sentence, tree, words, write

import prepare
from configs.errors import explain
from corpus import jobs, sources

RAN = 240  # seconds that a started process may take


def settings_for(folder, rows=60, **more):
    write(folder / "raw/a.jsonl", jsonl({"text": document("en", i)} for i in range(rows)))
    sources = more.pop("sources", [dict(name="web", path="a.jsonl", category="high", language="en")])
    settings = dict(sources=sources, vocab_size=320, valid_fraction=0.0, near_dedup=False, workers=1) | more
    return words(folder / "raw", folder / "out", **settings)


def start(root, settings, **environment):
    return subprocess.Popen([sys.executable, str(root / "prepare.py"), *settings], env=os.environ | environment,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


# ---------------------------------------------------------------------- one run in a folder

def test_a_second_run_in_a_folder_is_refused(tmp_path):
    settings = settings_for(tmp_path)
    with jobs.run_lock(tmp_path / "out/work"):
        with pytest.raises(ValueError, match=rf"out is in use by another prepare.py \(process {os.getpid()} on .*wait"):
            prepare.main(settings)
    prepare.main(settings)  # the lock ends with its run


def test_a_lock_left_by_a_killed_run_holds_nothing(tmp_path):
    holder = f"import sys; sys.path.insert(0, {str(jobs.ROOT)!r}); from corpus import jobs; " \
             "from pathlib import Path; " \
             f"lock = jobs.run_lock(Path({str(tmp_path / 'work')!r})); lock.__enter__(); print('held', flush=True); " \
             "import time; time.sleep(99)"
    process = subprocess.Popen([sys.executable, "-c", holder], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    with pytest.raises(ValueError, match="in use"), jobs.run_lock(tmp_path / "work"):
        pass
    process.kill()
    process.wait()
    with jobs.run_lock(tmp_path / "work"):
        pass


def test_the_workers_of_a_killed_run_may_take_a_moment(tmp_path):
    """They hold its lock until they are gone: the next run waits for them, and does not tell of another prepare.py."""
    with jobs.run_lock(tmp_path / "work"):
        pass
    held = open(tmp_path / "work/lock")
    fcntl.flock(held, fcntl.LOCK_EX)
    threading.Timer(0.5, held.close).start()
    with jobs.run_lock(tmp_path / "work"):
        assert held.closed


def test_where_nothing_can_be_locked(tmp_path, monkeypatch, capsys):
    """Said, not taken for another run."""
    def flock(*_):
        raise OSError(errno.ENOTSUP, "Operation not supported")
    monkeypatch.setattr(fcntl, "flock", flock)
    with jobs.run_lock(tmp_path / "work"):
        assert "cannot be locked (Operation not supported)" in capsys.readouterr().err


def test_an_output_folder_with_other_files_is_refused(tmp_path):
    settings = settings_for(tmp_path)
    write(tmp_path / "out/thesis.tex", "years of work")
    write(tmp_path / "out/web/notes.txt", "more of it")
    with pytest.raises(ValueError, match=r"out holds files that prepare.py did not make \(thesis.tex, web\)"):
        prepare.main(settings)
    assert sorted(tree(tmp_path / "out")) == ["thesis.tex", "web/notes.txt"]


def test_raw_text_where_the_output_goes_stays(tmp_path):
    """raw= and out= are one folder, and the raw text is in text/, where the kept text goes."""
    path = tmp_path / "own/text/en.jsonl"
    write(path, '{"text": "One."}\n')
    source = dict(name="en", path="text/en.jsonl", category="en", language="en")
    c = prepare.Prepare(raw=str(tmp_path / "own"), out=str(tmp_path / "own"), sources=[source], language_names={})
    with pytest.raises(ValueError, match="text/en.jsonl lies where out=.*own is written and would be overwritten"):
        sources.check_output(c)
    sources.check_output(replace(c, out=str(tmp_path / "own/tokens")))
    assert path.read_text() == '{"text": "One."}\n'


def test_names_that_leave_the_folder_are_refused(tmp_path):
    write(tmp_path / "mine.txt", "x")
    for name in ("..", ".", "", "work", "../mine", "/etc"):
        source = dict(name=name, path="a.jsonl", category="high", language="en")
        with pytest.raises(ValueError, match="source name"):
            prepare.main(settings_for(tmp_path, sources=[source]))
    assert (tmp_path / "mine.txt").read_text() == "x" and not (tmp_path / "out").exists()


# ---------------------------------------------------------------------- parents and ranks

def children(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def alive(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")
def test_processes_of_the_pool_end_with_their_parent(tmp_path):
    """SIGKILL of the parent alone."""
    code = f"import sys, os, time; sys.path.insert(0, {str(jobs.ROOT)!r}); from corpus import jobs; " \
           "from concurrent.futures import ProcessPoolExecutor as P; " \
           "pool = P(2, initializer=jobs.exit_with_parent, initargs=[os.getpid()]); " \
           "[pool.submit(time.sleep, 60) for _ in range(4)]; time.sleep(0.5); print('up', flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "up\n"
    workers = children(process.pid)
    assert workers and all(map(alive, workers))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    begin = time.monotonic()
    while any(map(alive, workers)):
        assert time.monotonic() - begin < 30, "a process outlives its parent"
        time.sleep(0.1)


def killed(stamp):
    """A task that the kernel kills for want of memory."""
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_worker_is_one_line(tmp_path):
    ranks = jobs.Ranks(tmp_path / "work", 0, 1)
    with jobs.ProcessPoolExecutor(1) as pool:
        with pytest.raises(ValueError, match="clean: a worker process was killed at web/00003 .*workers=.*"
                                             "finished work is kept"):
            jobs.run_tasks(pool, ranks, "clean", killed, [()], [tmp_path / "web/00003.json"])


def two_ranks(tmp_path):
    return [jobs.Ranks(tmp_path / "work", rank, 2) for rank in (0, 1)]


def start_both(one, two):
    thread = threading.Thread(target=two.start)
    thread.start()
    one.start()
    thread.join()


def test_a_rank_that_fails_ends_the_other_with_its_reason(tmp_path):
    one, two = two_ranks(tmp_path)
    start_both(one, two)
    one.check()
    two.finish(ValueError("a.jsonl changed while it was read"))
    with pytest.raises(jobs.OtherRankFailed, match="rank 1 failed: ValueError: a.jsonl changed while it was read"):
        one.wait_for([tmp_path / "never.json"])
    one.finish(None)


def test_a_rank_that_fails_before_the_start(tmp_path):
    one, two = two_ranks(tmp_path)
    thread = threading.Thread(target=two.finish, args=[ValueError("nothing at /mnt/raw")])
    thread.start()
    with pytest.raises(jobs.OtherRankFailed, match="rank 1 failed: ValueError: nothing at /mnt/raw"):
        one.start()
    thread.join()


def test_failures_of_an_earlier_run_do_not_count(tmp_path, monkeypatch):
    """Nor does silence before the start."""
    monkeypatch.setattr(jobs, "DEAD", 0.3)
    for rank in (0, 1):
        write(tmp_path / f"work/failed-{rank}", "ValueError: long ago")
        write(tmp_path / f"work/alive-{rank}", "7")
    one, two = two_ranks(tmp_path)
    thread = threading.Thread(target=two.start)
    thread.start()
    time.sleep(1)
    monkeypatch.setattr(jobs, "DEAD", 60)
    one.start()
    thread.join()
    one.check()
    two.check()
    one.finish(None)
    two.finish(None)


def test_a_rank_that_dies_ends_the_other(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "BEAT", 0.1)
    monkeypatch.setattr(jobs, "DEAD", 1.0)
    one, two = two_ranks(tmp_path)
    start_both(one, two)
    two.heart.terminate()  # its heartbeat ends, as it does with the process
    two.heart.join()
    with pytest.raises(jobs.OtherRankFailed, match="rank 1 is gone"):
        one.wait_for([tmp_path / "never.json"])
    one.finish(None)


def test_a_rank_that_has_finished_is_not_dead(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "BEAT", 0.1)
    monkeypatch.setattr(jobs, "DEAD", 0.5)
    one, two = two_ranks(tmp_path)
    start_both(one, two)
    two.finish(None)
    stamp = tmp_path / "late.json"
    threading.Timer(1.5, stamp.write_text, ["{}"]).start()
    one.wait_for([stamp])
    one.finish(None)


def test_a_heartbeat_that_is_slow_is_not_dead_and_a_silent_one_is(tmp_path, monkeypatch):
    """What counts is the time since it was last seen to change, not how high it counts; no file at all is silence."""
    clock = [100.0]
    monkeypatch.setattr(jobs.time, "monotonic", lambda: clock[0])
    one, _ = two_ranks(tmp_path)
    one.started = True
    for count, seconds in (("1", 19), ("2", 19), ("3", 19), ("1", 19), ("done", 10 ** 6)):
        write(tmp_path / "work/alive-1", count)
        one.check()
        clock[0] += seconds
        one.check()
    for text in ("7", None):
        if text is None:
            (tmp_path / "work/alive-1").unlink()
        else:
            write(tmp_path / "work/alive-1", text)
        one.check()
        clock[0] += 20.5
        with pytest.raises(jobs.OtherRankFailed, match="rank 1 is gone: nothing was heard of it for 20 s"):
            one.check()


def test_a_rank_alone_has_no_heartbeat_and_hears_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "DEAD", 0.0)
    alone = jobs.Ranks(tmp_path / "work", 0, 1)
    alone.start()
    write(tmp_path / "work/failed-0", "ValueError: of an earlier run")
    alone.check()
    alone.finish(None)
    assert alone.heart is None and not list((tmp_path / "work").glob("alive-*"))


HEART = """
import sys, time
sys.path.insert(0, {root!r})
from multiprocessing import Process
from pathlib import Path
from corpus import jobs, sources
import os
jobs.BEAT = 0.05
heart = Process(target=jobs.beat, args=(Path({file!r}), os.getpid()), daemon=True)
heart.start()
print(heart.pid, flush=True)
time.sleep(99)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="no /proc here")
def test_a_heartbeat_ends_with_its_rank(tmp_path):
    """It counts as long as the rank lives, and not one beat longer: SIGKILL leaves no time to say so."""
    file = tmp_path / "alive-1"
    code = HEART.format(root=str(jobs.ROOT), file=str(file))
    rank = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    heart, begin = int(rank.stdout.readline()), time.monotonic()
    while not file.exists() or int(file.read_text() or 0) < 4:
        assert time.monotonic() - begin < 30, "it does not beat"
        time.sleep(0.01)
    rank.kill()
    rank.wait()
    while alive(heart):
        assert time.monotonic() - begin < 60, "it outlives its rank"
        time.sleep(0.01)
    jobs.beat(tmp_path / "none", parent=heart)  # of a parent that is gone
    assert not (tmp_path / "none").exists()


def test_a_failure_stops_the_heartbeat_and_is_told_once(tmp_path):
    """A rank that ends because of another's failure does not tell it on as its own."""
    one, two = two_ranks(tmp_path)
    start_both(one, two)
    hearts = [one.heart, two.heart]
    two.finish(ValueError("no such file"))
    with pytest.raises(jobs.OtherRankFailed) as e:
        one.check()
    one.finish(e.value)
    assert not any(heart.is_alive() for heart in hearts)
    assert (tmp_path / "work/failed-1").read_text() == "ValueError: no such file"
    assert not (tmp_path / "work/failed-0").exists()


def test_the_next_run_forgets_the_files_of_the_last(tmp_path):
    """Greetings, failures and heartbeats of a run that was killed; its stamps wait until they are found to hold."""
    for name in ("go", "hello-1", "failed-1", "alive-1"):
        write(tmp_path / "work" / name, "deadbeef")
    write(tmp_path / "work/web/00000.json", "{}")
    one, two = two_ranks(tmp_path)
    start_both(one, two)
    assert not (tmp_path / "work/failed-1").exists() and "deadbeef" not in (tmp_path / "work/go").read_text()
    assert [p.name for p in (tmp_path / "work/web").iterdir()] == ["00000.old"]
    one.finish(None)
    two.finish(None)


def test_a_rank_that_never_starts(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "START", 0.3)
    with pytest.raises(ValueError, match="not all of the 2 ranks have started after 0.3 s"):
        jobs.Ranks(tmp_path / "work", 0, 2).start()


@pytest.mark.slow
def test_a_killed_rank_ends_the_other_program(tmp_path, root):
    source = dict(name="web", path="*.jsonl", category="high", language="en")
    settings = settings_for(tmp_path, sources=[source])
    write(tmp_path / "raw/b.jsonl", jsonl({"text": document("en", i)} for i in range(30_000)))  # rank 1's file
    ranks = [start(root, settings, RANK=str(r), WORLD_SIZE="2") for r in (0, 1)]
    while not (tmp_path / "out/work/alive-1").exists():
        time.sleep(0.1)
    ranks[1].kill()
    _, error = ranks[0].communicate(timeout=RAN)
    assert ranks[0].returncode == 1 and "rank 1 is gone" in error and "Traceback" not in error


@pytest.mark.slow
def test_two_programs_at_once(tmp_path, root):
    """One of them is refused, the other leaves what an undisturbed run leaves."""
    settings = settings_for(tmp_path, rows=3000)
    both = [start(root, settings) for _ in range(2)]
    errors = [process.communicate(timeout=RAN)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 1]
    assert any("in use by another prepare.py" in error for error in errors)
    left = tree(tmp_path / "out")
    prepare.main([w.replace(str(tmp_path / "out"), str(tmp_path / "again")) for w in settings])
    assert left == tree(tmp_path / "again")


# ---------------------------------------------------------------------- errors of disks

@pytest.mark.parametrize("number, advice", [
    (errno.ENOSPC, "free some space"), (errno.EROFS, "read-only"), (errno.EACCES, "permissions"),
    (errno.ENOTDIR, "is a file"), (errno.EEXIST, "it is a file"), (errno.EFBIG, "ulimit")])
def test_errors_say_the_path_and_what_to_do(number, advice):
    assert explain(ValueError("no")) == "ValueError: no"
    said = explain(OSError(number, os.strerror(number), "/data/out/x"))
    assert "/data/out/x" in said and advice in said and "set out=" in said and "\n" not in said


def test_a_path_that_is_a_file(tmp_path, root):
    write(tmp_path / "out", "a file")
    process = start(root, settings_for(tmp_path))
    _, error = process.communicate(timeout=RAN)
    assert process.returncode == 1 and "Traceback" not in error
    assert str(tmp_path / "out") in error and "is a file" in error
    assert (tmp_path / "out").read_text() == "a file"


# ---------------------------------------------------------------------- parts of a large file

def test_parts_of_a_file_give_the_same_bytes(tmp_path, monkeypatch):
    """Duplicates across parts, bad rows and all; the stamps alone know of the parts."""
    rows = [{"text": document("en", i % 150)} if i % 17 else {"body": "x"} for i in range(200)]
    settings = settings_for(tmp_path, workers=2)
    write(tmp_path / "raw/a.jsonl", jsonl(rows))
    prepare.main(settings)
    whole = tree(tmp_path / "out")
    monkeypatch.setattr(prepare.sources, "PART_BYTES", 2000)  # the processes of the pool are forks and see it, too
    prepare.main([w.replace(str(tmp_path / "out"), str(tmp_path / "parts")) for w in settings])
    assert len(list((tmp_path / "parts/work/web").glob("*.passed"))) > 5
    parts = tree(tmp_path / "parts")
    results = [{k: v for k, v in files.items() if not k.startswith("work/")} for files in (whole, parts)]
    assert results[0] == results[1] and len(results[0]) > 5


def test_parts_of_chats_and_pairs_give_the_same_bytes(tmp_path, monkeypatch):
    """A header holds for all parts; quoted fields may hold line breaks, and are not cut."""
    chats = [{"messages": messages_of(sentence("en", 41 * i), sentence("en", 43 * (i % 90))), "extra": i}
             if i % 17 else {"body": "x"} for i in range(120)]
    pairs = [(sentence("en", 37 * (i % 90)), sentence("kk", 37 * (i % 90))) for i in range(120)]
    write(tmp_path / "raw/chat.jsonl", jsonl(chats) + "{\n")
    write(tmp_path / "raw/b.jsonl", jsonl({"src": a, "tgt": b} if i % 19 else [1] for i, (a, b) in enumerate(pairs)))
    lines = [f"{b}\t{a}\n" if i % 19 else "\n" for i, (a, b) in enumerate(pairs)]
    write(tmp_path / "raw/b.tsv", "kk\ten\n" + "".join(lines))
    write(tmp_path / "raw/q.tsv", "".join(f'"{a}\n"\t"""{b}"""\n' for a, b in pairs))
    kinds = {"chat.jsonl": {"kind": "chat"}} | dict.fromkeys(["b.jsonl", "b.tsv", "q.tsv"], {"target": "kk"})
    sources = [dict(name=path.replace(".", "-"), path=path, category="low", language="en") | kind
               for path, kind in ({"a.jsonl": {}} | kinds).items()]
    settings = settings_for(tmp_path, sources=sources, template="chatml", vocab_size=400)
    prepare.main(settings)
    whole = tree(tmp_path / "out")
    monkeypatch.setattr(prepare.sources, "PART_BYTES", 2000)
    prepare.main([w.replace(str(tmp_path / "out"), str(tmp_path / "parts")) for w in settings])
    count = {path.name: len(list(path.glob("*.passed"))) for path in (tmp_path / "parts/work").glob("*-*")}
    assert count.pop("q-tsv") == 1 and min(count.values()) > 3
    book = json.loads((tmp_path / "parts/account.json").read_text())
    assert all(b["kept"] > 60 for name, b in book.items() if name != "a-jsonl")
    parts = tree(tmp_path / "parts")
    results = [{k: v for k, v in files.items() if not k.startswith("work/")} for files in (whole, parts)]
    assert results[0] == results[1] and len(results[0]) > 15


# ---------------------------------------------------------------------- what is said at the start

def test_unknown_languages_are_refused_before_any_work(tmp_path):
    pytest.importorskip("py3langid")
    source = dict(name="web", path="a.jsonl", category="low", language="hau")
    for change in (dict(sources=[source]), dict(sources=[SOURCES[3] | dict(path="a.jsonl", target="mi")])):
        with pytest.raises(ValueError, match=r"does not know '(hau|mi)' .*langid=False"):
            prepare.main(settings_for(tmp_path, langid=True, language_names={"en": "English", "mi": "Maori"}, **change))
    assert not (tmp_path / "out").exists()


def test_a_language_without_a_name_is_identified(tmp_path):
    """language_names is for the templates; what it lacks must not be dropped as another language."""
    pytest.importorskip("py3langid")
    prepare.main(settings_for(tmp_path, langid=True, language_names={"de": "German", "fr": "French"}))
    assert json.loads((tmp_path / "out/account.json").read_text())["web"]["kept"] > 50


def test_evaluation_files_are_counted(tmp_path, capsys):
    settings = settings_for(tmp_path, evaluation=["q.json", "short.txt"])
    write(tmp_path / "raw/q.json", json.dumps([{"question": document("en", 7)}]))
    write(tmp_path / "raw/short.txt", "Yes\nNo\n")
    prepare.main(settings)
    said = capsys.readouterr().out
    assert "evaluation: q.json: " in said and "short.txt: 0 sequences of 2 texts; nothing of it can be found" in said
    assert json.loads((tmp_path / "out/account.json").read_text())["web"]["dropped"] == {"evaluation: q.json": 1}


def adds_up(book):
    """The account of a source, after its sums over records and bytes were checked."""
    size = book["text_bytes"]
    assert size["read"] == size["kept"] + size["dropped"] + size["edited"]
    assert book["records"] == book["read"] + sum(book["skipped"].values())
    assert book["read"] == book["kept"] + sum(book["dropped"].values())
    return book


def test_the_account_adds_up_over_records(tmp_path):
    record = "WARC/1.0\r\nWARC-Type: {}\r\nContent-Length: {}\r\n\r\n{}\r\n\r\n"
    bodies = [("warcinfo", "x"), *(("conversion", document("en", i)) for i in range(40)), ("conversion", "Short."),
              ("metadata", "y")]
    settings = settings_for(tmp_path, sources=[dict(name="web", path="a.wet", category="high", language="en")])
    write(tmp_path / "raw/a.wet", "".join(record.format(kind, len(body), body) for kind, body in bodies))
    prepare.main(settings)
    book = adds_up(json.loads((tmp_path / "out/account.json").read_text())["web"])
    assert book["records"] == 43 == book["read"] + sum(book["skipped"].values()) and book["read"] == 41
    assert book["skipped"] == {"record of type metadata": 1, "record of type warcinfo": 1} and book["kept"] == 40
    assert book["file_bytes"] == (tmp_path / "raw/a.wet").stat().st_size and book["unread_bytes"] == 0
    assert book["text_bytes"]["dropped"] == len("Short.")


def test_the_account_adds_up_over_bytes(tmp_path):
    """Of text that is edited, duplicated, dropped and not read; of pairs that become templates; of refused chats."""
    texts = [document("en", i) for i in range(40)]
    rows = [{"text": f"  {t}\n\n\n\nWrite to jo@mail.com. "} for t in texts] + [{"text": texts[0]}, {"text": texts[0]}]
    raw = jsonl(rows) + json.dumps({"body": "no text"}) + "\n"
    names = [("river", "Fluss"), ("stone", "Stein"), ("garden", "Garten")]
    pairs = [f"The old {a} is near.\tDer alte {b} ist nah.\n" for a, b in names]
    question = {"role": "user", "content": "2 + 2?"}
    answers = [{"role": "assistant", "content": "Four."}, {"role": "assistant", "content": "4", "reasoning": "so"}]
    sources = [dict(name="web", path="b.jsonl", category="high", language="en"),
               dict(name="pairs", path="p.tsv", category="pairs", language="en", target="de"),
               dict(name="chats", path="c.jsonl", category="chat", language="en", kind="chat")]
    settings = settings_for(tmp_path, sources=sources, template="chatml", filter_bitext=False,
                            language_names={"en": "English", "de": "German"})
    write(tmp_path / "raw/b.jsonl", raw)
    write(tmp_path / "raw/p.tsv", "".join([*pairs, "Alone.\n"]))
    write(tmp_path / "raw/c.jsonl", jsonl({"messages": [question, answer]} for answer in answers))
    prepare.main(settings)
    books = json.loads((tmp_path / "out/account.json").read_text())
    web, bitext, chats = (adds_up(books[name]) for name in ("web", "pairs", "chats"))
    text_of = [json.loads(line)["text"] for line in (tmp_path / "out/text/web.jsonl").read_text().splitlines()]
    kept = sum(len(t.encode()) for t in text_of)
    edited = sum(len(row["text"].encode()) for row in rows[:41]) - kept  # the last is a duplicate
    assert len(text_of) == 41 and web["text_bytes"]["kept"] == kept and web["text_bytes"]["edited"] == edited != 0
    read = sum(len(row["text"].encode()) for row in rows) + len(raw.splitlines()[-1])
    assert web["text_bytes"]["read"] == read and web["file_bytes"] == len(raw.encode())
    assert bitext["text_bytes"]["read"] == sum(map(len, pairs)) - 2 * len(pairs) + len("Alone.")
    assert bitext["text_bytes"]["dropped"] == len("Alone.") and bitext["text_bytes"]["edited"] < 0
    assert chats["kept"] == 1 and chats["text_bytes"]["dropped"] == len("2 + 2?\nso\n4")


def test_the_tail_of_a_damaged_file_is_counted(tmp_path):
    """The bytes behind the damage are of no record."""
    head = "WARC/1.0\r\nWARC-Type: conversion\r\nContent-Length: {}\r\n\r\n"
    records = [head.format(len(text)) + text + "\r\n\r\n" for text in (document("en", i) for i in range(30))]
    settings = settings_for(tmp_path, keep_going=True,
                            sources=[dict(name="web", path="a.wet", category="high", language="en")])
    write(tmp_path / "raw/a.wet", "".join(records[:20]) + "lost " * 100 + "".join(records[20:]))
    prepare.main(settings)
    book = adds_up(json.loads((tmp_path / "out/account.json").read_text())["web"])
    assert book["kept"] == 20 and book["unread_bytes"] == 500 + sum(map(len, records[20:]))
    assert book["file_bytes"] == sum(map(len, records)) + 500


# ---------------------------------------------------------------------- stamps

def test_a_stamp_with_any_byte_changed_does_not_count(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"tokens")
    jobs.write_stamp(tmp_path / "a.json", "inputs", [tmp_path / "a.bin"], dropped={"chars": 2}, kept={3: 1.5})
    whole = (tmp_path / "a.json").read_bytes()
    for at in range(len(whole)):
        for changed in (whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1:], whole[:at]):
            (tmp_path / "a.old").write_bytes(changed)
            assert not jobs.up_to_date(tmp_path / "a.json", "inputs", [tmp_path / "a.bin"]), changed
    (tmp_path / "a.old").write_bytes(whole)
    assert not jobs.up_to_date(tmp_path / "a.json", "others", [tmp_path / "a.bin"])
    assert jobs.up_to_date(tmp_path / "a.json", "inputs", [tmp_path / "a.bin"])
    assert json.loads((tmp_path / "a.json").read_text())["dropped"] == {"chars": 2}
