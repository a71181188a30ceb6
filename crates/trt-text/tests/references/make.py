"""Renders templates with Jinja set up as transformers sets it up, for `tests/rendered.rs` to compare with.

    python make.py          # needs jinja2 3.1.6; writes rendered.json
    python make.py --check  # also renders everything with transformers' own environment, where it is installed

Small cases are here, one for each function, filter, test, statement and rule of white space; templates of models are
the files in `models/`. A case that fails in Jinja is kept as `null`: it must be an error for us too. The
differences are the lists in `lists.py`: `REFUSED` works in Jinja and is an error for us that names it, `LENIENT` is an
error in Jinja and renders for us, and `DIFFERENT` renders as something else, which no prompt should need.
"""

import json
import os
import sys
from datetime import datetime

import jinja2
import jinja2.ext
from jinja2.ext import Extension
from jinja2.sandbox import ImmutableSandboxedEnvironment

from cases import CASES, CONVERSATIONS, VARIABLES
from lists import DIFFERENT, LENIENT, REFUSED

HERE = os.path.dirname(os.path.abspath(__file__))


class AssistantTracker(Extension):
    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_support"), [], [], body).set_lineno(line)

    @jinja2.pass_eval_context
    def _support(self, context, caller):
        return caller()


class TemplateDict:
    def __call__(self, *args, **kwargs):
        return dict(*args, **kwargs)

    def fromkeys(self, *args, **kwargs):
        return dict.fromkeys(*args, **kwargs)


class TemplateNamespace(jinja2.utils.Namespace):
    def __init__(*args, **kwargs):
        self, args = args[0], args[1:]
        attrs = dict(*args, **kwargs)
        for name in attrs:
            TemplateNamespace._check_name(name)
        jinja2.utils.Namespace.__init__(self, attrs)

    def __setitem__(self, name, value):
        TemplateNamespace._check_name(name)
        jinja2.utils.Namespace.__setitem__(self, name, value)

    @staticmethod
    def _check_name(name):
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(name)


def raise_exception(message):
    raise jinja2.exceptions.TemplateError(message)


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def environment():
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[AssistantTracker, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = lambda format: datetime.now().strftime(format)
    env.globals["dict"] = TemplateDict()
    env.globals["namespace"] = TemplateNamespace
    return env


def render(env, source, variables):
    try:
        text = env.from_string(source).render(**json.loads(json.dumps(variables)))
    except Exception as error:  # noqa: BLE001: whatever it is, it is an error
        return {"error": f"{type(error).__name__}: {error}"}
    # Where an object lies in Python's memory is nothing that a prompt can need.
    return {"error": text} if " at 0x" in text else text


def all_cases():
    for source in CASES:
        yield source, "small", VARIABLES
    models = os.path.join(HERE, "models")
    for name in sorted(os.listdir(models)):
        with open(os.path.join(models, name), encoding="utf-8") as file:
            source = file.read()
        for key, variables in CONVERSATIONS.items():
            yield source, f"{name} {key}", variables


def main():
    env = environment()
    cases, errors = [], []
    for source, name, variables in all_cases():
        text = render(env, source, variables)
        if isinstance(text, dict):
            errors.append((source if name == "small" else name, text["error"]))
            text = None
        small = name == "small"
        kinds = {"refused": REFUSED, "lenient": LENIENT, "different": DIFFERENT}
        kind = next((kind for kind, of in kinds.items() if small and source in of), "equal")
        cases.append({"name": name, "source": source if small else None, "text": text, "kind": kind})
    if "--check" in sys.argv:
        from transformers.utils.chat_template_utils import _compile_jinja_template

        for (source, name, variables), case in zip(all_cases(), cases):
            try:
                theirs = _compile_jinja_template(source).render(**json.loads(json.dumps(variables)))
            except Exception:  # noqa: BLE001
                theirs = None
            theirs = None if theirs and " at 0x" in theirs else theirs
            assert theirs == case["text"], (name, source, theirs, case["text"])
        print("transformers renders the same")
    if "--errors" in sys.argv:
        for source, error in errors:
            print(repr(source), "->", error)
    unknown = {*REFUSED, *LENIENT, *DIFFERENT} - set(CASES)
    assert not unknown, unknown
    with open(os.path.join(HERE, "rendered.json"), "w", encoding="utf-8") as file:
        out = {"variables": VARIABLES, "conversations": CONVERSATIONS, "cases": cases}
        json.dump(out, file, ensure_ascii=False, indent=1)
        file.write("\n")
    print(f"{len(cases)} cases, {len(errors)} of them errors")


if __name__ == "__main__":
    main()
