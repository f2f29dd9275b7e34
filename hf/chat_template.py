"""Chat templates: those known by name, and rendering.

A template is a stranger's Jinja program. It runs in Jinja's sandbox, in a child process with limits on time, memory and
output; its variables and filters are those of transformers' apply_chat_template.
"""
import atexit
import contextlib
import datetime
import functools
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

CPU_SECONDS = 5
MEMORY = 1 << 30      # bytes of address space
MAX_OUTPUT = 16 << 20  # characters
NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")

_TURNS = "{{ bos_token }}%s{%% for m in messages %%}%s{%% endfor %%}{%% if add_generation_prompt %%}{{ %r }}{%% endif %%}"
_HEADERS = "{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}"
_HEADER = "<|start_header_id|>assistant<|end_header_id|>\n\n"
_NO_SYSTEM = "{%% if messages[0].role != 'system' %%}%s{%% endif %%}"
TEMPLATES = {  # for tokenizers that bring none; BayLing 2's turns as bayling/conversation.py of ictnlp/BayLing joins them
    "chatml": _TURNS.removeprefix("{{ bos_token }}") % (
        "", "{{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}", "<|im_start|>assistant\n"),
    "llama3": _TURNS % ("", _HEADERS, _HEADER),
    "bayling": _TURNS % (_NO_SYSTEM % (
        "I am an intelligent language assistant developed by the NLP Group of ICT/CAS.{{ '\\n' }}Below is a dialog consisting "
        "of instructions and responses. Write a response that completes the request.{{ '\\n' }}"),
        "{{ {'system': '', 'user': '### Instruction:\\n', 'assistant': '### Response:\\n'}[m.role] + m.content"
        " + ('</s>' if m.role == 'assistant' else '') + '\\n' }}", "### Response:\n"),
    "bayling-llama3": _TURNS % (_NO_SYSTEM % (
        "<|start_header_id|>system<|end_header_id|>{{ '\\n\\n' }}I am BayLing developed by the NLP Group of ICT/CAS.<|eot_id|>"),
        _HEADERS, _HEADER),
}
_OWN = frozenset(TEMPLATES.values())


# ---------------------------------------------------------------------- in this process or the child

@functools.lru_cache
def compile_template(template):
    """A Jinja template in its sandbox, with what transformers offers a template."""
    from jinja2 import TemplateError, ext, nodes
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(ext.Extension):
        """{% generation %} marks what the assistant says; it has no effect on the text."""
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            return nodes.Scope(parser.parse_statements(("name:endgeneration",), drop_needle=True)).set_lineno(line)

    def raise_exception(message):
        raise TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def strftime_now(form):
        return datetime.datetime.now().strftime(form)

    env = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, ext.loopcontrols])
    env.filters["tojson"] = tojson
    env.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    return env.from_string(template)


def render_here(template, variables):
    """(text, None) or (None, why the template failed)."""
    try:
        text = compile_template(template).render(**variables)
    except Exception as e:  # whatever a stranger's program does
        return None, f"{type(e).__name__}: {e}"
    if len(text) > MAX_OUTPUT:
        return None, f"it wrote {len(text)} characters; at most {MAX_OUTPUT} are accepted"
    return text, None


def serve():
    """The child process: one JSON line of requests in, one JSON line of answers out, until the parent closes the pipe."""
    import resource
    import time

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent
    compile_template("")
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    for line in sys.stdin.buffer:
        resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time()) + 1 + CPU_SECONDS, hard))  # the kernel ends it
        answers = [render_here(template, variables) for template, variables in json.loads(line)]
        try:
            written = json.dumps(answers).encode()
        except MemoryError:
            written = json.dumps([(None, "MemoryError") for _ in answers]).encode()
        sys.stdout.buffer.write(written + b"\n")
        sys.stdout.buffer.flush()


# ---------------------------------------------------------------------- the parent's side

class Renderer:
    """The child process that renders the templates of folders for this process."""

    def __init__(self):
        self.pid, self.lock, self.child = os.getpid(), threading.Lock(), None

    def start(self):
        root = str(Path(__file__).resolve().parent.parent)
        command = f"import sys; sys.path.insert(0, {root!r}); from hf.chat_template import serve; serve()"
        self.child = subprocess.Popen([sys.executable, "-c", command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      stderr=subprocess.DEVNULL)
        atexit.register(self.stop)

    def stop(self):
        """End the child; a forked process leaves its parent's child alone."""
        if self.child is not None and self.pid == os.getpid():
            child, self.child = self.child, None
            child.kill()
            child.wait()
            with contextlib.suppress(OSError):  # a request that it did not read
                child.stdin.close()
            child.stdout.close()
            atexit.unregister(self.stop)

    def ask(self, requests):
        """The answers to [(template, variables), ...]; ValueError when the template exceeds its limits."""
        line = json.dumps(requests, default=str).encode() + b"\n"
        with self.lock:
            if self.child is None or self.child.poll() is not None:
                self.stop()
                self.start()
            try:
                self.child.stdin.write(line)
                self.child.stdin.flush()
                answer = self.child.stdout.readline()
            except BrokenPipeError:
                answer = b""
            if not answer.endswith(b"\n"):
                status = self.child.wait()
                self.stop()
                raise ValueError("the chat template exceeds its limits in this conversation: more than "
                                 f"{CPU_SECONDS} s of CPU time or {MEMORY >> 20} MiB of memory (exit status {status})")
            return json.loads(answer)


_renderer = Renderer()


def render_all(template, many):
    """The texts of a template with each of several sets of variables. ValueError says why one of them failed."""
    global _renderer
    if template in _OWN:
        answers = [render_here(template, variables) for variables in many]
    else:
        if _renderer.pid != os.getpid():  # forked
            _renderer = Renderer()
        answers = _renderer.ask([(template, variables) for variables in many])
    for _, problem in answers:
        if problem is not None:
            raise ValueError(f"the chat template refuses this conversation: {problem}")
    return [text for text, _ in answers]
