"""prepare.py's cascade as pipeline blocks of datatrove, for a corpus that needs its Slurm or Ray executor.

    pip install datatrove orjson
    python recipes/datatrove_steps.py configs/tiny/data.py out=out/datatrove tasks=4      # its local executor

    out/passed/LANGUAGE/NAME/*.jsonl   web text that passes the steps        out/kept/NAME/*.jsonl    what remains
    out/dropped/NAME/STEP/*.jsonl      what a step drops, with filter_reason out/logs/               datatrove's own

The steps are those of prepare.py with the same settings: every document gets the same verdict. MinHash is datatrove's,
over all web sources of a language at once and with the signatures of corpus/dedup.py, so no word splitter is needed. It
matches documents that share one band of eight values, where prepare.py also requires 60 % of all 112 to agree, and
keeps any one of a cluster, where prepare.py keeps the longest. Then prepare.py makes token shards from kept/: text as a
source with clean=True, pairs with filter_bitext=False; it also drops exact duplicates of pairs and knowledge.

On a cluster, with this repository in PYTHONPATH:

    c, = configs.load(prepare.Prepare, argv=["configs/marco/data.py"])
    previous = None
    for name, pipeline, tasks in datatrove_steps.stages(c, tasks=512):
        previous = SlurmPipelineExecutor(pipeline, tasks, time="10:00:00", partition="cpu", job_name=name,
                                         logging_dir=f"{c.out}/logs/{name}", depends=previous)
    previous.run()

In your own pipeline, put blocks(c, source) or a single Step after any datatrove reader.
"""
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))
import prepare
from configs import errors, load
from corpus import dedup, read, sources, warc

try:
    from datatrove.data import Document
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.base import PipelineStep
    from datatrove.pipeline.dedup import minhash
    from datatrove.pipeline.filters.base_filter import BaseFilter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.word_tokenizers import WhitespaceTokenizer
except ImportError as e:
    raise ImportError(f"datatrove_steps needs packages: pip install datatrove orjson ({e})") from None

MINHASH = minhash.MinhashConfig(n_grams=dedup.SHINGLE, num_buckets=dedup.BANDS, hashes_per_bucket=dedup.ROWS,
                                hash_config=HashConfig(precision=32, hash_fc="sha1"))  # hash_fc is unused


@dataclass(frozen=True)
class Tasks:
    tasks: int = 4  # of each source; a task takes every n-th file, or part of a large one

    def __post_init__(self):
        if self.tasks <= 0:
            raise ValueError(f"tasks must be positive, got {self.tasks}")


# ---------------------------------------------------------------------- blocks

class Read(PipelineStep):
    """The documents of a source as prepare.py reads them, damaged rows included."""
    type, name = "📖 - READER", "prepare.py"

    def __init__(self, c: prepare.Prepare, source: dict):
        super().__init__()
        self.c, self.source = c, source

    def run(self, data=None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Documents with metadata source, file, offset, line, url, a pair's fields and why it is unread, if it is."""
        for _, path, start, end in sources.find_parts(self.c, self.source)[rank::world_size]:
            for doc in prepare.read_source(self.c, self.source, path, start, end, {}):
                if str(doc.reason).startswith(warc.SKIPPED):  # a record that is no document
                    self.stat_update(doc.reason)
                    continue
                self.stat_update("documents")
                metadata = dict(doc.more) if "target" in self.source else {}
                metadata |= {"source": self.source["name"], "file": doc.file, "offset": doc.offset, "line": doc.line}
                metadata |= {"url": doc.url} | ({"unread": doc.reason} if doc.reason is not None else {})
                yield Document(doc.text, f"{doc.file}:{doc.line}", metadata=metadata)


class Step(BaseFilter):
    """A step of prepare.py (a function that takes a corpus.read.Document and returns None or the reason to drop it).

    load: returns the step. It is called where the block runs, since loaded models cannot be sent there.
    """

    def __init__(self, load: Callable[[], Callable], name: str, exclusion_writer: JsonlWriter | None = None):
        self.name = name
        super().__init__(exclusion_writer)
        self.load = load

    def run(self, data, rank: int = 0, world_size: int = 1):
        self.step = self.load()
        yield from super().run(data, rank, world_size)

    def filter(self, doc: Document) -> bool | tuple[bool, str]:
        ours = read.Document(doc.text, url=read.find_url(doc.metadata), more=doc.metadata)
        reason = self.step(ours)
        doc.text = ours.text
        return True if reason is None else (False, reason)


class Signatures(minhash.MinhashDedupSignature):
    """MinHash signatures of corpus/dedup.py, written as datatrove's next stages read them."""

    def __init__(self, folder: str):
        super().__init__(folder, MINHASH, WhitespaceTokenizer())  # unused; others need packages

    def get_shingles(self, text: str) -> np.ndarray:
        """The signature itself (112,) uint32: `get_signature` only has to divide it."""
        return dedup.signature(text)

    def get_signature(self, signature: np.ndarray) -> list[list[int]]:
        return [band.tolist() for band in np.split(signature, dedup.BANDS)]


def load_step(c: prepare.Prepare, source: dict, i: int) -> Callable:
    return prepare.steps_of(c, source)[i]


def blocks(c: prepare.Prepare, source: dict, dropped: str | None = None) -> list[Step]:
    """The steps of a source in prepare.py's order. dropped: a folder for what they drop, one in it for each step."""
    def writer(name):
        return JsonlWriter(f"{dropped}/{name}", compression=None, expand_metadata=True) if dropped else None

    out = [Step(lambda: lambda doc: doc.more.get("unread"), "read", writer("read"))]
    for i, step in enumerate(prepare.steps_of(c, source)):
        name = getattr(getattr(step, "func", step), "__name__", "filter_evaluation").removeprefix("filter_")
        out.append(Step(partial(load_step, c, source, i), name, writer(name)))
    return out


# ---------------------------------------------------------------------- stages

def stages(c: prepare.Prepare, tasks: int) -> list[tuple[str, list, int]]:
    """(name, pipeline, number of its tasks) of every stage, in order; each needs all that come before."""
    return [*step_stages(c, tasks), *(s for language in languages(c) for s in minhash_stages(c, language, tasks))]


def languages(c) -> list[str]:  # whose web documents are deduplicated
    return sorted({s["language"] for s in c.sources if sources.is_web(s)}) if c.near_dedup else []


def step_stages(c, tasks):
    for source in c.sources:
        name, near = source["name"], sources.is_web(source) and c.near_dedup
        folder = f"{c.out}/passed/{source['language']}/{name}" if near else f"{c.out}/kept/{name}"
        yield (f"steps-{name}", [Read(c, source), *blocks(c, source, f"{c.out}/dropped/{name}"),
                                 JsonlWriter(folder, compression=None, expand_metadata=True)], tasks)


def minhash_stages(c, language, tasks):
    """datatrove's four stages over all web documents of a language."""
    folder = f"{c.out}/minhash/{language}"

    def reader():
        return JsonlReader(f"{c.out}/passed/{language}", glob_pattern="**/*.jsonl", add_file_path=False)

    def writer(name):  # ${source} is in the metadata
        return JsonlWriter(c.out, f"{name}/${{rank}}.jsonl", compression=None, expand_metadata=True)

    yield f"signatures-{language}", [reader(), Signatures(f"{folder}/signatures")], tasks
    yield (f"buckets-{language}", [minhash.MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets",
                                                               config=MINHASH)], dedup.BANDS)
    yield (f"clusters-{language}", [minhash.MinhashDedupCluster(f"{folder}/buckets", f"{folder}/clusters",
                                                                config=MINHASH)], 1)
    remove = minhash.MinhashDedupFilter(f"{folder}/clusters", writer("dropped/${source}/duplicate"))
    yield f"duplicates-{language}", [reader(), remove, writer("kept/${source}")], tasks


# ---------------------------------------------------------------------- the local executor

def main(argv: list[str] | None = None):
    c, t = load(prepare.Prepare, Tasks, argv=argv)
    check(c, t)
    run_locally(c, step_stages(c, t.tasks))
    account = count_documents(c)
    lost = {name: reason for name, (_, _, dropped) in account.items() for reason in dropped
            if reason.startswith("unreadable")}
    if lost and not c.keep_going:
        raise ValueError(f"damaged files: {lost}; replace them and use a new out=, or set keep_going=True")
    if empty := [name for name, (read_count, _, dropped) in account.items() if read_count == sum(dropped.values())]:
        raise ValueError(f"nothing left of {', '.join(empty)}; what was dropped, and why, is in {c.out}/dropped")
    for language in languages(c):
        run_locally(c, minhash_stages(c, language, t.tasks))
    for name, (read_count, kept, dropped) in count_documents(c).items():
        assert read_count == kept + sum(dropped.values()), f"{name}: documents lost"
        reasons = ", ".join(f"{reason} {n}" for reason, n in dropped.most_common())
        print(f"{name}: {read_count:,} read, {kept:,} kept; dropped: {reasons or 'none'}")


def check(c, t):
    """ValueError for sources that need more than one document at a time, and for an output folder of another run, where
    datatrove would skip the finished tasks.
    """
    for source in c.sources:
        if sources.has_chats(source) or "vectors" in source:
            raise ValueError(f"source {source['name']}: chats, and pairs with vectors, are prepared by prepare.py "
                             "alone; leave it out here")
    prepare.check_inputs(c)
    states = [prepare.file_states(path) for source in c.sources for path in sources.find_files(c, source)]
    settings = json.dumps(asdict(c) | {"workers": None, "tasks": t.tasks, "files": states}, indent=1)
    path = Path(c.out) / "settings.json"
    if path.exists() and path.read_text() != settings:
        raise ValueError(f"{c.out} holds a run with other settings or files ({path}); set out= to a new folder")
    if not path.exists() and Path(c.out).is_dir() and any(Path(c.out).iterdir()):
        raise ValueError(f"{c.out} holds files that this recipe did not make; set out= to a new or empty folder")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(settings)


def run_locally(c, stages):
    for name, pipeline, tasks in stages:
        workers = min(tasks, c.workers or os.cpu_count())
        LocalPipelineExecutor(pipeline, tasks, workers, logging_dir=f"{c.out}/logs/{name}").run()


def count_documents(c) -> dict[str, tuple[int, int, Counter]]:
    """{source: (read, kept, Counter of the reasons)}, from what datatrove wrote."""
    out = {}
    for source in c.sources:
        name, read_count, dropped = source["name"], 0, Counter()
        for path in Path(c.out, f"logs/steps-{name}/stats").glob("*.json"):  # of each task; stats.json: of the last run
            count = json.loads(path.read_text())[0]["stats"].get("documents", 0)
            read_count += count["total"] if isinstance(count, dict) else count
        for path in Path(c.out, "dropped", name).glob("*/*.jsonl"):
            dropped.update(json.loads(line).get("filter_reason", "duplicate") for line in path.open("rb"))
        kept = sum(sum(1 for _ in path.open("rb")) for path in Path(c.out, "kept", name).glob("*.jsonl"))
        out[name] = read_count, kept, dropped
    return out


if __name__ == "__main__":
    from recipes import datatrove_steps  # by its own name, so other processes can import the blocks
    try:
        datatrove_steps.main()
    except (ValueError, OSError) as e:
        sys.exit(errors.explain(e))
